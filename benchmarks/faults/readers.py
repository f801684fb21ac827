"""Readers of a work directory while training writes to it and removes from it."""

import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.faults.runs import Whole, finish, last_step, start, train_command, wait_until
from flax_transformer.checkpoints.loading import load_parameters
from flax_transformer.config import MeshConfig
from flax_transformer.config.json import load_config
from flax_transformer.models.initialization import abstract_params
from flax_transformer.parallel.sharding import build_mesh


def read_while_training(run: Whole, seconds: float) -> dict[str, Any]:
    """Loads the average of the last checkpoints again and again, and translates with it."""
    workdir = run.folder / "read"
    training = start(train_command(workdir, 100_000), run.cache)
    wait_until(training, lambda: last_step(workdir) >= 30)
    source = run.folder / "source"
    source.write_text("the cat sees the dog.\n")
    words = f"translate.py --workdir {workdir} --input {source}".split()
    loads = failed_loads = commands = failed_commands = 0
    used: set[tuple[int, ...] | None] = set()
    end = time.monotonic() + seconds
    translation = None
    while time.monotonic() < end or translation is not None:
        if translation is None:
            translation = start(words, run.cache)
        elif translation.poll() is not None:
            ended = finish(translation)
            commands += 1
            failed_commands += ended.code != 0 or ended.output.count("\n") != 1
            translation = None
        if time.monotonic() < end:
            loads += 1
            used.add(steps := _averaged_steps(workdir))
            failed_loads += steps is None
        else:
            time.sleep(0.05)
    training.terminate()
    code = finish(training).code
    return {
        "seconds": seconds,
        "loads": loads,
        "failed loads": failed_loads,
        "different checkpoints averaged": len(used - {None}),
        "translate commands": commands,
        "failed commands": failed_commands,
        "steps trained meanwhile": last_step(workdir),
        "training ended with": code,
    }


def _averaged_steps(workdir: Path) -> tuple[int, ...] | None:
    """Loads the average; returns the steps that are in it, or None where that failed."""
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    try:
        config = load_config(workdir / "config.json")
        return tuple(load_parameters(workdir, config, abstract_params(config, mesh)).steps)
    except Exception as error:
        print(f"a load failed: {type(error).__name__}: {error}", flush=True)
        return None
