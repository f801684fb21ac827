"""Kills a training run with SIGKILL at random moments and restarts it each time; the parameters at
the end must equal those of a run that nothing interrupted, bit for bit.

    python benchmarks/kill_and_resume.py --kills 10
"""

import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from fault_runs import (
    differing_arrays,
    finish,
    last_step,
    parameters,
    start,
    train_command,
    write_text,
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compares a run killed again and again with one left alone."""

    kills: int = 10
    seed: int = 0
    """Seed of the moments."""
    steps: int = 400


def kill_and_resume(
    folder: Path, whole: Path, cache: Path, steps: int, kills: int, seed: int
) -> int:
    """How many parameter arrays of a run killed so often differ from those of `whole`."""
    moments, killed = random.Random(seed), folder / "killed"
    for number in range(kills):
        process = start(train_command(killed, steps), cache)
        # Anywhere between the start of Python and some steps into the training.
        if moments.random() < 0.3:
            time.sleep(moments.uniform(0, 12))
        else:
            goal = last_step(killed) + moments.randrange(1, max(2 * steps // kills, 2))
            while last_step(killed) < min(goal, steps - 1) and process.poll() is None:
                time.sleep(0.05)
            time.sleep(moments.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        print(f"kill {number + 1}: metrics up to step {last_step(killed)}", flush=True)
    ended = finish(start(train_command(killed, steps), cache))
    assert ended.code == 0, ended.errors
    return differing_arrays(whole, killed)


def main(arguments: Arguments) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, cache = folder / "whole", folder / "cache"
        write_text(folder)
        assert finish(start(train_command(whole, arguments.steps), cache)).code == 0
        different = kill_and_resume(
            folder, whole, cache, arguments.steps, arguments.kills, arguments.seed
        )
        print(f"{different} of {len(parameters(whole))} parameter arrays differ")
        sys.exit(different != 0)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
