"""What it costs to know that numbers are finite and files are whole: with and without, in turns.

    python -m benchmarks.faults.costs --config configs/multi30k_en_de.py

The step with and without the look at its new parameters; a checkpoint's writing, in the background
as a run writes it, with and without checksums; its reading with and without comparing them.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.timing import Seconds, in_turns, ratio
from benchmarks.train_step.contender import take_steps
from benchmarks.train_step.made_up_batches import full_batches
from benchmarks.train_step.ours import OurStep, one_device
from benchmarks.train_step.variants import TOKENS
from flax_transformer.checkpoints import reading, writing
from flax_transformer.checkpoints.files import write_checksums
from flax_transformer.checkpoints.progress import Progress
from flax_transformer.checkpoints.restoring import restore_newest
from flax_transformer.checkpoints.writing import Checkpoints
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import Config
from flax_transformer.config.shipped import load_config_file
from flax_transformer.training import step
from flax_transformer.training.state import TrainState, abstract_state, all_finite, create_state


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Times checks beside doing without."""

    config: Path = Path("configs/multi30k_en_de.py")
    steps: int = 15
    """How often each of the two steps is timed."""
    saves: int = 41
    """How often each of the two writings and readings is timed."""
    record: Path = RECORDS / "check_costs.json"


def costs(seconds: dict[str, Seconds]) -> dict[str, Any]:
    """Medians, and the share of them that the first of two takes beyond the second."""
    checked, plain = seconds.values()
    times = ratio(checked, plain)
    return {name: round(each.median, 4) for name, each in seconds.items()} | {
        "share of the median": round(times.of_medians - 1, 4),
        "share of the least": round(times.of_least - 1, 4),
    }


def step_costs(config: Config, repeats: int) -> dict[str, Any]:
    """Times the training step, and the check as a program of its own."""
    batches = full_batches(config, 1, TOKENS)
    checked = OurStep(config, batches)
    with mock.patch.object(step, "all_finite", lambda tree: jnp.bool_(True)):
        plain = OurStep(config, batches)
    steps = {"with the check": checked, "without": plain}
    found = costs(in_turns({k: partial(take_steps, x, 1) for k, x in steps.items()}, repeats))
    check, params = jax.jit(all_finite), checked.state.params
    alone = in_turns({"alone": lambda: jax.block_until_ready(check(params))}, 30)["alone"]
    return found | {"the check alone": round(alone.least, 5)}


class Saves:
    """A checkpoint that is written again and again in `folder`."""

    def __init__(self, folder: Path, config: Config, state: TrainState):
        self._folder, self._config, self._state = folder, config, state
        self._checkpoints: Checkpoints | None = None

    def close(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.close()

    def prepare(self) -> None:
        """Removes what the last turn wrote."""
        self.close()
        shutil.rmtree(self._folder / "checkpoints", ignore_errors=True)
        self._checkpoints = Checkpoints(self._folder, self._config)

    def save(self, write: Callable[[Path], None] = write_checksums) -> None:
        """Writes a checkpoint, and returns when it is there."""
        assert self._checkpoints is not None
        with mock.patch.object(writing, "write_checksums", write):
            state, progress = self._state, Progress(tokenizer="")
            self._checkpoints.save(1, state.params, state.optimizer_state, progress)
            self._checkpoints.newest()


def save_costs(config: Config, repeats: int) -> dict[str, Any]:
    """Times the writing and the reading of a checkpoint."""
    state = create_state(config, one_device())
    with tempfile.TemporaryDirectory() as name:
        saves = Saves(Path(name), config, state)
        plain = partial(saves.save, lambda folder: None)
        writings = {"with checksums": saves.save, "without": plain}
        written = in_turns(writings, repeats, before=saves.prepare)
        saves.prepare()
        saves.save()
        read = in_turns(readings(Path(name), config), repeats)
        saves.close()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    return {"writing": costs(written), "reading": costs(read), "bytes": size}


def readings(folder: Path, config: Config) -> dict[str, Callable[[], None]]:
    """Returns the two ways to read the newest checkpoint of `folder`."""
    like = abstract_state(config, one_device())

    def restore() -> None:
        assert restore_newest(folder, like.params, like.optimizer_state) is not None

    def restore_unchecked() -> None:
        with (
            mock.patch.object(reading, "check_whole", lambda *arguments: True),
            mock.patch.object(reading, "_all_finite", lambda tree: True),
        ):
            restore()

    return {"with the checks": restore, "without": restore_unchecked}


def main(words: Sequence[str]) -> None:
    arguments = parse_arguments(Arguments, words)
    config = load_config_file(arguments.config)
    figures = {"step": step_costs(config, arguments.steps)}
    figures |= save_costs(config, arguments.saves)
    print(figures)
    append_record(arguments, ("jax", "orbax-checkpoint"), figures)


if __name__ == "__main__":
    run_command(main)
