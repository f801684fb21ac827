"""Kills a training run with SIGKILL at random moments and restarts it each time; the parameters at
the end must equal those of a run that nothing interrupted, bit for bit.

    python benchmarks/kill_and_resume.py --kills 10
"""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro

from flax_transformer.config import MeshConfig
from flax_transformer.config_json import load_config
from flax_transformer.sharding import build_mesh
from flax_transformer.training.metrics import read_metrics
from flax_transformer.training.restoring import load_parameters

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compares a run killed again and again with one left alone."""

    kills: int = 10
    seed: int = 0
    """Seed of the moments."""
    steps: int = 400


def start(workdir: Path, steps: int) -> subprocess.Popen:
    """The quick start, smaller."""
    flags = (
        f"--training.steps {steps} --training.checkpoint-every 10 --training.log-every 1 "
        "--training.evaluate-every 100 --training.validation-sentences 8 "
        "--optimizer.cooldown-steps 20 --optimizer.warmup-steps 50 "
        "--batch.rows 16 --model.d-model 32 --model.num-heads 2 --model.d-ff 64"
    )
    words = ["train.py", "--config", "configs/quickstart.py", "--workdir", str(workdir)]
    command = [sys.executable, *words, *flags.split()]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def parameters(workdir: Path) -> list[np.ndarray]:
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    config = load_config(workdir / "config.json")
    decoding = dataclasses.replace(config.decoding, checkpoint="latest")
    params = load_parameters(workdir, dataclasses.replace(config, decoding=decoding), mesh).params
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def last_step(workdir: Path) -> int:
    return max((line["step"] for line in read_metrics(workdir)), default=0)


def main(arguments: Arguments) -> None:
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        assert start(whole, arguments.steps).wait() == 0
        for number in range(arguments.kills):
            process = start(killed, arguments.steps)
            # Anywhere between the start of Python and some steps into the training.
            if moments.random() < 0.3:
                time.sleep(moments.uniform(0, 12))
            else:
                before = last_step(killed)
                goal = before + moments.randrange(1, 2 * arguments.steps // arguments.kills)
                while last_step(killed) < min(goal, arguments.steps - 1):
                    time.sleep(0.05)
                time.sleep(moments.uniform(0, 0.2))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            print(f"kill {number + 1}: metrics up to step {last_step(killed)}", flush=True)
        assert start(killed, arguments.steps).wait() == 0
        pairs = list(zip(parameters(whole), parameters(killed), strict=True))
        different = sum(not np.array_equal(a, b) for a, b in pairs)
        print(f"{different} of {len(pairs)} parameter arrays differ")
        sys.exit(different != 0)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
