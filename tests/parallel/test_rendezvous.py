"""Processes of a run that should meet, and what each is told where they do not."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import pytest

from flax_transformer.config.hosts import HostsConfig
from flax_transformer.errors import LostProcessError, UserError
from flax_transformer.parallel import hosts, rendezvous

ROOT = Path(__file__).parents[2]


@pytest.fixture
def coordinator() -> str:
    """An address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def settings(coordinator: str, index: int, count: int, patience: int = 30) -> HostsConfig:
    return HostsConfig(coordinator=coordinator, count=count, index=index, patience=patience)


def outcomes(*processes: HostsConfig) -> list[str]:
    """What becomes of each, all at the same time: "met", or its error."""

    def outcome(process: HostsConfig) -> str:
        try:
            rendezvous.meet(process)
        except (UserError, LostProcessError) as error:
            return f"{type(error).__name__}: {error}"
        return "met"

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(outcome, processes))


def reach(coordinator: str) -> socket.socket:
    """A connection to process 0, once it listens."""
    host, port = coordinator.split(":")
    for _ in range(1200):
        try:
            return socket.create_connection((host, int(port)), timeout=60)
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"nobody listens at {coordinator}")


def test_all_meet_in_any_order_and_the_port_is_free_again(coordinator):
    order = [2, 0, 1]
    assert outcomes(*(settings(coordinator, index, 3) for index in order)) == ["met"] * 3
    socket.create_server(("", int(coordinator.split(":")[1]))).close()
    assert outcomes(settings(coordinator, 0, 1)) == ["met"]


def test_all_that_are_there_hear_who_is_missing(coordinator):
    first, third = outcomes(settings(coordinator, 0, 4, 2), settings(coordinator, 2, 4, 60))
    expected = f"LostProcessError: processes 1 and 3 of 4 did not come to {coordinator} within 2 s"
    assert first.startswith(expected)
    assert third == first


def test_many_missing_processes_are_not_all_named(coordinator):
    (message,) = outcomes(settings(coordinator, 0, 100, 1))
    assert "processes 1, 2, 3, 4, 5, 6, 7, 8 and 91 more of 100" in message


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "Connection refused"),
        ("no-such-host.invalid", "[Nn]ame"),
        ("no..host", "idna|label"),
    ],
)
def test_a_first_process_that_cannot_be_reached_is_named(coordinator, address, reason):
    coordinator = coordinator.replace("127.0.0.1", address)
    with pytest.raises(
        LostProcessError, match=rf"process 0 did not answer at {coordinator}.*{reason}"
    ):
        rendezvous.meet(settings(coordinator, 1, 2, 1))


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"[1]\n", b"\xff\n"])
def test_another_service_is_not_taken_for_the_first_process(says, coordinator):
    with socket.create_server(("127.0.0.1", int(coordinator.split(":")[1]))) as service:

        def answer():
            while True:
                try:
                    connection, _ = service.accept()
                except OSError:  # closed
                    return
                with connection:
                    connection.sendall(says)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(LostProcessError, match=r"did not answer.*(else answers|closed|reset)"):
            rendezvous.meet(settings(coordinator, 1, 2, 1))
        with pytest.raises(UserError, match=rf"port .* of hosts.coordinator {coordinator}.*use"):
            rendezvous.meet(settings(coordinator, 0, 2))
        service.shutdown(socket.SHUT_RDWR)


def test_settings_that_do_not_fit_together_are_named_to_all(coordinator):
    told = outcomes(*(settings(coordinator, index, 4) for index in (0, 1, 1)))
    assert len(set(told)) == 1
    assert told[0].startswith("UserError: two processes have --hosts.index 1")
    told = outcomes(settings(coordinator, 0, 4), settings(coordinator, 2, 3))
    assert len(set(told)) == 1
    assert told[0].startswith("UserError: process 2 has --hosts.count 3, but process 0 has 4")


def test_strangers_do_not_count(coordinator, monkeypatch):
    monkeypatch.setattr(rendezvous, "_STRANGER_SECONDS", 0.5)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(outcomes, settings(coordinator, 0, 2))
        silent = reach(coordinator)
        for greeting in [b"", b"GET / HTTP/1.1\r\n", b"[" * 9000 + b"\n", b'{"index": 1}\n']:
            with reach(coordinator) as stranger:
                stranger.sendall(greeting)
        assert not first.done()
        assert outcomes(settings(coordinator, 1, 2)) == ["met"]
        assert first.result(60) == ["met"]
        silent.close()


def test_a_process_that_was_started_again_is_one(coordinator):
    with ThreadPoolExecutor() as pool:
        first = pool.submit(outcomes, settings(coordinator, 0, 3))
        greeting = {"run": "flax_transformer", "index": 1, "count": 3}
        with reach(coordinator) as ended, ended.makefile("rb") as file:
            ended.sendall(json.dumps(greeting).encode() + b"\n")
            assert json.loads(file.readline())["run"] == "flax_transformer"
        others = outcomes(settings(coordinator, 1, 3), settings(coordinator, 2, 3))
        assert [*first.result(60), *others] == ["met"] * 3


def command(coordinator: str, index: int, patience: int) -> subprocess.Popen:
    flags = (
        f"--hosts.coordinator {coordinator} --hosts.count 2 --hosts.index {index} "
        f"--hosts.patience {patience} --config configs/quickstart.py"
    )
    return subprocess.Popen(
        [sys.executable, "train.py", *flags.split()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_command_alone_ends_with_a_message(coordinator):
    with socket.socket() as nobody:  # bound, but not listening
        nobody.bind(("127.0.0.1", 0))
        elsewhere = f"127.0.0.1:{nobody.getsockname()[1]}"
        processes = [command(coordinator, 0, 2), command(elsewhere, 1, 2)]
        ended = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    (_, first), (_, other) = ended
    assert first.startswith(f"error: process 1 of 2 did not come to {coordinator} within 2 s")
    assert other.startswith(f"error: process 0 did not answer at {elsewhere} within 2 s")
    assert first.count("\n") == other.count("\n") == 1


def test_ctrl_c_ends_a_command_that_waits_for_others(coordinator):
    process = command(coordinator, 0, 300)
    with reach(coordinator):
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)
    assert process.returncode == 130 and output == ("", "")


@pytest.fixture
def left(monkeypatch) -> list[int]:
    """Codes with which the process would have ended."""
    codes: list[int] = []

    def leave(code: int):
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(hosts.os, "_exit", leave)
    return codes


@pytest.fixture
def jax_waits(monkeypatch, left):
    """JAX waits for ever, and hears nothing."""
    end = threading.Event()
    monkeypatch.setattr(hosts, "meet", lambda settings: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **options: end.wait(100))
    yield end
    end.set()


def test_ctrl_c_ends_jaxs_own_waiting(jax_waits, left, monkeypatch):
    def initialize(*_, **options):
        os.kill(os.getpid(), signal.SIGINT)
        jax_waits.wait(100)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    started = time.monotonic()
    with pytest.raises(SystemExit):
        hosts.join_hosts(settings("a:1", 1, 2))
    assert left == [130] and time.monotonic() - started < 50


def test_jaxs_own_waiting_is_bounded(jax_waits, left, monkeypatch, capsys):
    monkeypatch.setattr(hosts, "_JOINING_SECONDS", 0.2)
    with pytest.raises(LostProcessError, match=r"did not connect .* at a:1 within 0\.2 s"):
        hosts.join_hosts(settings("a:1", 1, 2))
    assert not left
    # At a regular end JAX would wait for those to whom it has half connected.
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    with pytest.raises(SystemExit):
        hosts.join_hosts(settings("a:1", 1, 2))
    assert left == [2]
    assert "error: JAX did not connect" in capsys.readouterr().err
