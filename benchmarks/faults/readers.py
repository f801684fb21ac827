"""Readers of a work directory while training writes to it and removes from it."""

import time
from typing import Any

import jax

from benchmarks.faults.runs import Whole, finish, last_step, start, train_command, wait_until
from flax_transformer.checkpoints.averaging import load_parameters
from flax_transformer.config import MeshConfig
from flax_transformer.config.json import load_config
from flax_transformer.models.initialization import abstract_params
from flax_transformer.parallel.sharding import build_mesh


def read_while_training(run: Whole, seconds: float) -> dict[str, Any]:
    """Loads the average of the last checkpoints again and again, and translates with it."""
    workdir = run.folder / "read"
    process = start(train_command(workdir, 100_000), run.cache)
    wait_until(process, lambda: last_step(workdir) >= 30)
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    loads = failed_loads = commands = failed_commands = 0
    used = set()
    source = run.folder / "source"
    source.write_text("the cat sees the dog.\n")
    end = time.monotonic() + seconds
    translation = None
    while time.monotonic() < end or translation is not None:
        if translation is None:
            words = f"translate.py --workdir {workdir} --input {source}".split()
            translation = start(words, run.cache)
        elif translation.poll() is not None:
            ended = finish(translation)
            commands += 1
            failed_commands += ended.code != 0 or ended.output.count("\n") != 1
            translation = None
        if time.monotonic() < end:
            loads += 1
            try:
                config = load_config(workdir / "config.json")
                steps = load_parameters(workdir, config, abstract_params(config, mesh)).steps
                used.add(tuple(steps))
            except Exception as error:
                failed_loads += 1
                print(f"load {loads}: {type(error).__name__}: {error}", flush=True)
        else:
            time.sleep(0.05)
    process.terminate()
    ended = finish(process)
    return {
        "seconds": seconds,
        "loads": loads,
        "failed loads": failed_loads,
        "different checkpoints averaged": len(used),
        "translate commands": commands,
        "failed commands": failed_commands,
        "steps trained meanwhile": last_step(workdir),
        "training ended with": ended.code,
    }
