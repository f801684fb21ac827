"""Deterministic kernels are asked for before JAX is there, and what the user set stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flax_transformer.errors import UserError
from flax_transformer.runtime.determinism import (
    FLAGS,
    choose_deterministic_kernels,
    kernels_are_deterministic,
)

ROOT = Path(__file__).parents[2]
TELL = "import os; print(os.environ.get('XLA_FLAGS', '')); raise SystemExit(7)"


@pytest.mark.parametrize("command", [[], ["--dry-run"], ["--diagnose"]])
@pytest.mark.parametrize("setting", ["deterministic", "no-deterministic"])
def test_the_flags_are_set_when_jax_is_loaded(tmp_path, command, setting):
    """A jax that only tells what it finds in the environment."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text(TELL)
    words = ["--config", "configs/quickstart.py", "--workdir", str(tmp_path / "run")]
    own = "--xla_cpu_enable_fast_math=false"
    done = subprocess.run(
        [sys.executable, "train.py", *words, f"--training.{setting}", *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "XLA_FLAGS": own},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 7, done.stderr
    added = FLAGS if setting == "deterministic" else ()
    assert done.stdout.split() == [own, *added]


def test_xla_knows_the_flags():
    """It ends the program at one that it does not know, on every kind of device."""
    program = "import jax; jax.block_until_ready(jax.numpy.zeros(2) + 1); print('done')"
    for flags, known in ((FLAGS, True), ((*FLAGS, "--xla_gpu_undreamt_of=true"), False)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"XLA_FLAGS": " ".join(flags)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.stdout == "done\n") == known, done.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, " ".join(FLAGS)),
        ("", " ".join(FLAGS)),
        ("--xla_cpu_x=1", " ".join(["--xla_cpu_x=1", *FLAGS])),
        ("--xla_gpu_autotune_level=4", f"--xla_gpu_autotune_level=4 {FLAGS[0]}"),
        (
            "--xla_gpu_deterministic_ops=false",
            f"--xla_gpu_deterministic_ops=false {FLAGS[1]}",
        ),
        (" ".join(reversed(FLAGS)), " ".join(reversed(FLAGS))),
    ],
)
def test_what_the_user_set_stands(monkeypatch, before, after):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    choose_deterministic_kernels()
    assert os.environ["XLA_FLAGS"] == after
    assert kernels_are_deterministic() == ("deterministic_ops=false" not in after)


@pytest.mark.parametrize(
    ("flags", "deterministic"),
    [
        ("", False),
        ("--xla_gpu_deterministic_ops", True),
        ("--xla_gpu_deterministic_ops=True", True),
        ("--xla_gpu_deterministic_ops=1", True),
        ("--xla_gpu_deterministic_ops=0", False),
        ("--xla_gpu_deterministic_ops=true --xla_gpu_deterministic_ops=false", False),
        ("--xla_gpu_autotune_level=0", False),
    ],
)
def test_the_users_own_flags_count(monkeypatch, flags, deterministic):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert kernels_are_deterministic() == deterministic


def test_a_file_of_flags_is_read_and_left_alone(monkeypatch, tmp_path):
    path = tmp_path / "flags"
    monkeypatch.setenv("XLA_FLAGS", str(path))
    with pytest.raises(UserError, match=r"XLA_FLAGS names .*flags, which cannot be read"):
        choose_deterministic_kernels()
    path.write_text(f"{FLAGS[0]}\n")
    assert kernels_are_deterministic()
    with pytest.raises(UserError, match=rf"{path} lacks: add {FLAGS[1]} to it"):
        choose_deterministic_kernels()
    path.write_text("\n".join(FLAGS))
    choose_deterministic_kernels()
    assert os.environ["XLA_FLAGS"] == str(path)
