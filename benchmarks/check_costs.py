"""What it costs to know that numbers are finite and files are whole: with and without, in turns.

    python benchmarks/check_costs.py --config configs/multi30k_en_de.py

The step with and without the look at its new parameters; a checkpoint's writing, in the background
as a run writes it, with and without checksums; its reading with and without comparing them.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import tyro
from recording import RECORDS, append_record
from step_variants import compiled_step, random_batch

from flax_transformer.checkpoints import reading
from flax_transformer.checkpoints import writing as checkpoints_module
from flax_transformer.checkpoints.files import write_checksums
from flax_transformer.checkpoints.progress import Progress
from flax_transformer.checkpoints.restoring import restore_newest
from flax_transformer.checkpoints.writing import Checkpoints
from flax_transformer.config import Config, MeshConfig
from flax_transformer.config.shipped import load_config_file
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.runtime.memory import keep_freed_memory
from flax_transformer.training import step
from flax_transformer.training.state import TrainState, abstract_state, all_finite, create_state


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Times checks beside doing without."""

    config: Path = Path("configs/multi30k_en_de.py")
    steps: int = 15
    """How often each of the two steps is timed."""
    saves: int = 41
    """How often each of the two writings and readings is timed."""


def in_turns(repeats: int, kinds: dict[str, Callable[[], float]]) -> dict[str, Any]:
    """Medians of seconds, and the share of them that the first kind takes beyond the second."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for repeat in range(repeats + 1):
        order = list(kinds.items())
        for name, run in order if repeat % 2 else reversed(order):
            seconds = run()
            if repeat:  # the first is a warm-up
                times[name].append(seconds)
    found = {name: statistics.median(seconds) for name, seconds in times.items()}
    (first, checked), (second, plain) = found.items()
    return {name: round(value, 4) for name, value in found.items()} | {
        "share of the median": round(checked / plain - 1, 4),
        "share of the least": round(min(times[first]) / min(times[second]) - 1, 4),
    }


def step_costs(config: Config, repeats: int) -> dict[str, Any]:
    batch = jax.device_put(random_batch(config))
    checked = compiled_step(config, batch)
    with mock.patch.object(step, "all_finite", lambda tree: jnp.bool_(True)):
        plain = compiled_step(config, batch)
    found = in_turns(repeats, {"with the check": checked, "without": plain})
    return found | {"the check alone": round(_check_alone(config), 5)}


def _check_alone(config: Config) -> float:
    """The least of some seconds that it takes as a program of its own."""
    params = create_state(config, build_mesh(MeshConfig(data=1), jax.devices()[:1])).params
    check = jax.jit(all_finite)
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        jax.block_until_ready(check(params))
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def save_costs(config: Config, repeats: int) -> dict[str, Any]:
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    state = create_state(config, mesh)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def save(checksums: bool) -> float:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            write = write_checksums if checksums else lambda folder: None
            with mock.patch.object(checkpoints_module, "write_checksums", write):
                checkpoints = Checkpoints(folder, config)
                start = time.perf_counter()
                checkpoints.save(1, state.params, state.optimizer_state, Progress(tokenizer=""))
                checkpoints.newest()
                seconds = time.perf_counter() - start
                checkpoints.close()
            return seconds

        written = in_turns(
            repeats, {"with checksums": lambda: save(True), "without": lambda: save(False)}
        )
        save(True)
        read = in_turns(repeats, _readings(folder, config, mesh))
    return {"writing": written, "reading": read, "bytes": _bytes(state)}


def _readings(folder: Path, config: Config, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    like = abstract_state(config, mesh)

    def restore() -> float:
        start = time.perf_counter()
        assert restore_newest(folder, like.params, like.optimizer_state) is not None
        return time.perf_counter() - start

    def restore_unchecked() -> float:
        with (
            mock.patch.object(reading, "check_whole", lambda *arguments: True),
            mock.patch.object(reading, "_all_finite", lambda tree: True),
        ):
            return restore()

    return {"with the checks": restore, "without": restore_unchecked}


def _bytes(state: TrainState) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


def main(arguments: Arguments) -> None:
    config = load_config_file(arguments.config)
    figures = {"step": step_costs(config, arguments.steps)}
    figures |= save_costs(config, arguments.saves)
    print(figures)
    append_record(RECORDS / "check_costs.json", ("jax", "orbax-checkpoint"), "", figures)


if __name__ == "__main__":
    keep_freed_memory()
    main(tyro.cli(Arguments))
