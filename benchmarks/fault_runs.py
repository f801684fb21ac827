"""A small training run that faults are tried on, and what is asked of it afterwards."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from flax_transformer.config import MeshConfig
from flax_transformer.config_json import load_config
from flax_transformer.sharding import build_mesh
from flax_transformer.training.metrics import read_metrics
from flax_transformer.training.restoring import load_parameters

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 300.0
"""Seconds after which a command hangs."""


class Ended(NamedTuple):
    """How a command ended; `code` is None where it did not."""

    code: int | None
    output: str
    errors: str
    seconds: float

    @property
    def lines_of_error(self) -> int:
        return len(self.errors.splitlines())

    @property
    def traceback(self) -> bool:
        return "Traceback" in self.errors + self.output


def train_command(workdir: Path, steps: int, *flags: str) -> list[str]:
    """The quick start, smaller: a checkpoint every 10 steps, a validation every 100."""
    words = (
        f"train.py --config configs/quickstart.py --workdir {workdir} --data.num-pairs 4000 "
        f"--training.steps {steps} --training.checkpoint-every 10 --training.log-every 1 "
        "--training.evaluate-every 100 --training.validation-sentences 8 "
        "--optimizer.cooldown-steps 20 --optimizer.warmup-steps 50 --batch.rows 16 "
        "--model.d-model 32 --model.num-heads 2 --model.d-ff 64 --tokenizer.vocabulary-size 1000"
    )
    return [*words.split(), *flags]


def start(words: list[str], cache: Path, **options) -> subprocess.Popen:
    """One of the project's commands, with caches of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=environment, text=True, **(pipes | options)
    )


def finish(process: subprocess.Popen) -> Ended:
    """Waits for the end, which comes by force after PATIENCE."""
    began = time.perf_counter()
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        return Ended(None, output or "", errors or "", PATIENCE)
    return Ended(process.returncode, output or "", errors or "", time.perf_counter() - began)


def wait_until(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Returns once `condition` holds or the process has ended."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and not condition() and time.monotonic() < end:
        time.sleep(0.02)


def last_step(workdir: Path) -> int:
    return max((line["step"] for line in read_metrics(workdir)), default=0)


def parameters(workdir: Path) -> list[np.ndarray]:
    """Those of the newest checkpoint."""
    config = load_config(workdir / "config.json")
    decoding = dataclasses.replace(config.decoding, checkpoint="latest")
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    params = load_parameters(workdir, dataclasses.replace(config, decoding=decoding), mesh).params
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def differing_arrays(one: Path, other: Path) -> int:
    """How many arrays of the parameters of two runs are not equal bit for bit."""
    pairs = zip(parameters(one), parameters(other), strict=True)
    return sum(not np.array_equal(a, b) for a, b in pairs)
