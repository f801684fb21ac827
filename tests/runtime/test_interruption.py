"""Being asked to stop, by whatever signal and in the middle of whatever."""

import os
import signal
import threading
import time

import pytest

from flax_transformer.runtime import interruption as interruption_module
from flax_transformer.runtime.interruption import InterruptedRunError, Interruption


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def handlers():
    """What is left behind would be a later test's surprise."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGUSR1, 143)],
)
def test_signals_ask_to_stop(number, code):
    with Interruption() as interruption:
        interruption.poll()
        assert not interruption.reached() and interruption.exit_code is None
        interruption.exit()
        send(number)
        assert interruption.reached() and interruption.exit_code == code
        with pytest.raises(InterruptedRunError):
            interruption.poll()
    with pytest.raises(SystemExit) as ended:
        interruption.exit()
    assert ended.value.code == code


def test_a_second_ctrl_c_ends_the_program():
    with Interruption() as interruption:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert interruption.exit_code == 143


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            send(signal.SIGHUP)
            assert not interruption.reached()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_work_that_no_signal_ends_is_left_behind(monkeypatch):
    """As a compilation, which runs for minutes inside XLA."""
    left, released = [], threading.Event()
    monkeypatch.setattr(interruption_module.os, "_exit", left.append)
    with Interruption() as interruption:
        assert interruption.run(lambda: 7) == 7
        with pytest.raises(TimeoutError, match="of the work"):
            interruption.run(lambda: (_ for _ in ()).throw(TimeoutError("of the work")))
        threading.Timer(0.2, send, [signal.SIGTERM]).start()
        started = time.monotonic()
        with pytest.raises(InterruptedRunError):
            interruption.run(lambda: released.wait(60))
        assert time.monotonic() - started < 20
        released.set()
        # Python itself would wait for the compilation, or crash while it runs.
        monkeypatch.setattr(interruption_module.sys, "exit", lambda code: None)
        interruption.exit()
    assert left == [143]


def test_processes_ask_their_service_equally_often(monkeypatch):
    asked = []

    def reached(number):
        asked.append(number)
        return number == 2

    monkeypatch.setattr(interruption_module.jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        interruption_module.multihost_utils, "reached_preemption_sync_point", reached
    )
    interruption = Interruption()
    assert [interruption.reached() for _ in range(5)] == [False, False, True, True, True]
    assert asked == [0, 1, 2] and interruption.exit_code == 143
    assert interruption.run(lambda: 7) == 7
