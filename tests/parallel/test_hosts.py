"""Two real processes of two devices each train as one, and stop and end together."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from support.states import load_chosen

from flax_transformer.config import Config
from flax_transformer.config.hosts import HostsConfig
from flax_transformer.config.json import load_config
from flax_transformer.config.shipped import load_config_file
from flax_transformer.data.builtin import generate
from flax_transformer.errors import DivergedError, LostProcessError, UserError
from flax_transformer.parallel import hosts
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.runtime.quick_compilation import QUICK_FLAGS
from flax_transformer.training import run_settings
from flax_transformer.training.metrics import read_metrics
from flax_transformer.training.run import Run
from flax_transformer.training.run_settings import open_workdir

ROOT = Path(__file__).parents[2]

CONFIG = """
import os
import time

from flax_transformer.config import *
from flax_transformer.data.packing import PackedRows

if "SECONDS_A_STEP" in os.environ:  # so that a signal arrives before the run is over

    def slowly(self, step, own, batch=PackedRows.batch):
        time.sleep(float(os.environ["SECONDS_A_STEP"]))
        return batch(self, step, own)

    PackedRows.batch = slowly

config = Config(
    data=TextFiles(directory={directory!r}, source_language="en", target_language="fr", test=()),
    tokenizer=TokenizerConfig(vocabulary_size=400),
    batch=BatchConfig(rows=8, source_length=48, target_length=48),
    model=TransformerConfig(
        num_encoder_layers=1, num_decoder_layers=1, d_model=16, num_heads=2, d_ff=32,
        compute_dtype="float32",
    ),
    # The rate stays small enough for the order of sums not to matter.
    optimizer=OptimizerConfig(warmup_steps=1000),
    training=TrainingConfig(
        steps=16, log_every=1, evaluate_every=8, validation_sentences=4, checkpoint_every=4,
    ),
    mesh=MeshConfig(data=-1, fsdp=2),
    decoding=DecodingConfig(extra_length=2),
)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "tiny.py").write_text(CONFIG.replace("{directory!r}", repr(str(folder))))
    pairs = generate(400)["train"]
    for name, some in {"train": pairs, "valid": pairs[:20]}.items():
        for language, side in (("en", 0), ("fr", 1)):
            text = "".join(pair[side] + "\n" for pair in some)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return folder


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(place: Path, *workdirs: str, seconds_a_step: float = 0) -> list[subprocess.Popen]:
    """A process for each of `workdirs`, which are those of one run and should be the same."""
    coordinator = free_address()
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {QUICK_FLAGS}",
        **({"SECONDS_A_STEP": str(seconds_a_step)} if seconds_a_step else {}),
    }
    processes = []
    for index, workdir in enumerate(workdirs):
        flags = (
            f"--config {place / 'tiny.py'} --workdir {place / workdir} --hosts.patience 20 "
            f"--hosts.coordinator {coordinator} --hosts.count {len(workdirs)} "
            f"--hosts.index {index}"
        )
        processes.append(
            subprocess.Popen(
                [sys.executable, "train.py", *flags.split()],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def finish(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each."""
    ended = [process.communicate(timeout=400) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, ended, strict=True)]


def wait_for_step(workdir: Path, step: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        lines = read_metrics(workdir)
        if lines and lines[-1]["step"] >= step:
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached")


def losses(workdir: Path) -> dict[tuple[int, str], float]:
    return {(line["step"], line["kind"]): line["loss"] for line in read_metrics(workdir)}


def parameters(workdir: Path):
    config = load_config(workdir / "config.json")
    decoding = dataclasses.replace(config.decoding, checkpoint="latest")
    config = dataclasses.replace(config, decoding=decoding)
    loaded = load_chosen(workdir, config, build_mesh(config.mesh))
    return loaded.params, loaded.steps


@pytest.fixture(scope="module")
def two_processes(place: Path) -> list[tuple[int, str, str]]:
    return finish(start(place, "two", "two"))


def test_two_processes_train_as_one(place, two_processes):
    (code, output, errors), (other_code, other_output, other_errors) = two_processes
    assert code == other_code == 0, errors + other_errors
    assert "on 4 device(s)" in output and "step 16 of 16" in output
    # Gloo, which only simulated devices use, speaks in every process.
    assert "step" not in other_output and "work directory" not in other_output

    Run(load_config_file(place / "tiny.py"), place / "one").train()
    one, two = losses(place / "one"), losses(place / "two")
    assert one.keys() == two.keys() and len(one) == 18
    np.testing.assert_allclose(list(one.values()), list(two.values()), rtol=1e-5)
    chex.assert_trees_all_close(
        parameters(place / "one"), parameters(place / "two"), rtol=1e-3, atol=1e-5
    )


def test_processes_stop_together_and_go_on_exactly(place, two_processes):
    workdir = place / "stopped"
    processes = start(place, "stopped", "stopped", seconds_a_step=0.2)
    wait_for_step(workdir, 3)
    processes[1].send_signal(signal.SIGTERM)
    (code, output, errors), (other_code, _, other_errors) = finish(processes)
    assert code == other_code == 128 + signal.SIGTERM, errors + other_errors
    assert "the same command goes on from there" in output
    stopped = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert 3 <= stopped < 14

    processes = start(place, "stopped", "stopped", seconds_a_step=0.2)
    wait_for_step(workdir, stopped + 1)
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    (code, _, errors), _ = finish(processes)
    assert code != 0 and time.monotonic() - killed < 120, "the first must not wait for ever"

    (code, _, errors), (other_code, _, other_errors) = finish(start(place, "stopped", "stopped"))
    assert code == other_code == 0, errors + other_errors
    chex.assert_trees_all_equal(parameters(workdir), parameters(place / "two"))
    assert losses(workdir) == losses(place / "two")


SLEEPER = """
import sys, time
from flax_transformer.commands.command_line import run_command
from flax_transformer.config.hosts import HostsConfig
from flax_transformer.parallel.hosts import join_hosts, leaving_when_failing

def main(words):
    join_hosts(HostsConfig(coordinator=words[0], count=2, index=int(words[1]), patience=10))
    with leaving_when_failing():
        print("met", flush=True)
        time.sleep(200)

run_command(main)
"""


def test_ctrl_c_in_one_process_waits_for_nobody():
    coordinator = free_address()
    first, other = (
        subprocess.Popen(
            [sys.executable, "-c", SLEEPER, coordinator, str(index)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    )
    assert first.stdout.readline() == other.stdout.readline() == "met\n"
    other.send_signal(signal.SIGINT)
    _, errors = other.communicate(timeout=8)
    assert other.returncode == 130 and "Traceback" not in errors
    first.communicate(timeout=100)  # it ends too, once its patience is over
    assert first.returncode != 0


def test_a_mistake_in_one_process_ends_all(place):
    (code, _, errors), (other_code, _, other_errors) = finish(start(place, "here", "there"))
    assert code == other_code == 2
    assert "process 1 of this run stopped" in errors
    assert "is not the folder in which the first process has begun" in other_errors
    assert "Traceback" not in errors + other_errors


def test_other_processes_must_see_the_first_ones_folder_and_settings(tmp_path, monkeypatch):
    open_workdir(tmp_path / "run", Config())
    monkeypatch.setattr(run_settings, "is_first_process", lambda: False)
    open_workdir(tmp_path / "run", Config())
    other = Config(training=dataclasses.replace(Config().training, steps=7))
    with pytest.raises(UserError, match=r"other settings:\n  training\.steps: 100000 -> 7"):
        open_workdir(tmp_path / "run", other)
    with pytest.raises(UserError, match="every host sees"):
        open_workdir(tmp_path / "elsewhere", Config())


def test_a_process_of_several_that_fails_waits_for_nobody(monkeypatch, capsys):
    monkeypatch.setattr(hosts.os, "_exit", sys.exit)
    monkeypatch.setattr(hosts, "_LEAVING_SECONDS", 0.1)
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: time.sleep(60))
    for count, error, expected in [
        (2, ValueError("a defect"), "SystemExit(1)"),
        (2, KeyboardInterrupt(), "SystemExit(130)"),
        (1, ValueError("alone"), "ValueError('alone')"),
        (1, KeyboardInterrupt(), "KeyboardInterrupt()"),
        (2, UserError("a mistake"), "SystemExit(2)"),
        (2, DivergedError("too far"), "SystemExit(2)"),
        (2, OSError(28, "No space left on device", "/a/b"), "SystemExit(2)"),
        (1, UserError("alone"), "UserError('alone')"),
    ]:
        monkeypatch.setattr(jax, "process_count", lambda count=count: count)
        with pytest.raises(BaseException) as raised, hosts.leaving_when_failing():
            raise error
        assert repr(raised.value) == expected
    errors = capsys.readouterr().err
    assert "ValueError: a defect" in errors and "KeyboardInterrupt" not in errors
    assert "error: a mistake\n" in errors and "error: too far\n" in errors
    assert "error: /a/b cannot be written" in errors
    assert errors.count("Traceback") == 1


def test_ctrl_c_does_not_wait_for_what_others_prepare(monkeypatch):
    """Neither in process 0, which prepares, nor in the others, though JAX waits and is deaf."""
    met = []

    def wait(name, **_):
        met.append(name)
        if jax.process_index():
            os.kill(os.getpid(), signal.SIGINT)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            with suppress(KeyboardInterrupt):
                time.sleep(0.1)
        raise AssertionError("nobody comes")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts.multihost, "sync_global_processes", wait)
    with pytest.raises(KeyboardInterrupt), hosts.first_process_first():
        raise KeyboardInterrupt
    assert not met
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(KeyboardInterrupt), hosts.first_process_first():
        pass
    assert met == ["process 0 is ready"]


@pytest.fixture
def initialized(monkeypatch) -> list:
    """Arguments of the calls that would start JAX's distributed runtime; it knows no cluster."""
    calls = []

    def initialize(*arguments, **options):
        assert "met" in calls or arguments[0] is None
        calls.append((*arguments, options["heartbeat_timeout_seconds"]))
        if arguments[0] is None:
            raise ValueError("coordinator_address should be defined.")
        if arguments[0].startswith("taken"):
            raise RuntimeError("address in use")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(hosts, "meet", lambda settings: calls.append("met"))
    for name in ("OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_a_machine_of_its_own_stays_alone(initialized, monkeypatch):
    hosts.join_hosts(HostsConfig())
    assert initialized == [(None, None, None, 60)]
    monkeypatch.setenv("SLURM_NTASKS", "1")
    hosts.join_hosts(HostsConfig())
    assert len(initialized) == 1
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"cannot meet.*--hosts\.coordinator"):
        hosts.join_hosts(HostsConfig())
    assert len(initialized) == 2


def test_named_hosts_meet(initialized):
    hosts.join_hosts(HostsConfig(coordinator="a:1", count=3, index=2, patience=5))
    assert initialized == ["met", ("a:1", 3, 2, 5)]
    with pytest.raises(LostProcessError, match="cannot meet: address in use"):
        hosts.join_hosts(HostsConfig(coordinator="taken:1", count=2, index=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coordinator": "a:1"}, "go together"),
        ({"count": 2, "index": 0}, "go together"),
        ({"coordinator": "a", "count": 2, "index": 0}, "ADDRESS:PORT"),
        ({"coordinator": "a:65536", "count": 2, "index": 0}, "from 1 to 65535"),
        ({"coordinator": "a:²", "count": 2, "index": 0}, "ADDRESS:PORT"),
        ({"coordinator": "a:1", "count": 2, "index": 2}, "hosts.index is 2.* from 0 to 1"),
        ({"patience": 0}, "hosts.patience is 0"),
    ],
)
def test_what_cannot_be_right_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        HostsConfig(**settings)
