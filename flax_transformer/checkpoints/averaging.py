"""The parameters to translate with: the mean of the last checkpoints, the best, or one step."""

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flax_transformer.checkpoints.files import DamagedCheckpointError
from flax_transformer.checkpoints.loading import Loaded
from flax_transformer.checkpoints.progress import Progress
from flax_transformer.checkpoints.reading import CheckpointFolder, GoneError
from flax_transformer.checkpoints.writing import PARAMS, PROGRESS, regular_steps
from flax_transformer.config import Config
from flax_transformer.errors import CheckpointError, UserError
from flax_transformer.workdir import BEST, CHECKPOINTS

_ATTEMPTS = 100
"""Most tries at reading checkpoints that a training run may remove meanwhile."""


def average(workdir: Path, config: Config, like: Any) -> Loaded:
    """Does what `load_parameters` does for checkpoints (checkpoints/loading.py)."""
    for attempt in range(_ATTEMPTS):
        try:
            return _load_parameters(workdir, config, like)
        except GoneError:
            time.sleep(0.01 * attempt)
    raise UserError(
        f"{workdir}: checkpoints are removed faster than they can be read: raise "
        "--training.keep-checkpoints, or wait until training has ended"
    )


def _load_parameters(workdir: Path, config: Config, like: Any) -> Loaded:
    choice = _choose(workdir, config)
    folder, waiting = choice.folder, choice.steps
    while waiting:
        used, total, progress = _sum_parameters(folder, waiting[-choice.most :], like)
        if progress is not None:
            damaged = f"warning: left out of {folder.directory}: {folder.describe_damaged()}"
            notes = [*choice.notes, *([damaged] if folder.damaged else [])]
            mean = jax.tree.map(partial(_divide, len(used)), total)
            return Loaded(mean, used, choice.name, progress, notes)
        waiting = waiting[: -choice.most]
    raise CheckpointError(
        f"{folder.directory} holds no sound checkpoint ({folder.describe_damaged()}): put a copy "
        "of one back, or choose others with --checkpoint"
    )


def _sum_parameters(
    folder: CheckpointFolder, steps: list[int], like: Any
) -> tuple[list[int], Any, Progress | None]:
    """Returns the sound ones of `steps`, the sum of their parameters, the last one's progress."""
    used: list[int] = []
    total: Any = None
    progress = None
    for step in steps:  # the oldest first, which training removes first
        try:
            folder.check(step)
            params = folder.restore(step, PARAMS, like)
            progress = folder.progress(step)
        except DamagedCheckpointError as error:
            folder.damaged[step] = str(error)
            continue
        total = params if total is None else jax.tree.map(jnp.add, total, params)
        used.append(step)
    return used, total, progress


def _divide(count: int, total: jax.Array) -> jax.Array:
    return total / count


class _Choice(NamedTuple):
    """What to average: of the `steps` in `folder`, at most the newest `most`."""

    name: str
    folder: CheckpointFolder
    steps: list[int]
    most: int
    notes: tuple[str, ...] = ()


def _choose(workdir: Path, config: Config) -> _Choice:
    decoding = config.decoding
    latest, best = (
        CheckpointFolder(workdir / name, (PARAMS, PROGRESS)) for name in (CHECKPOINTS, BEST)
    )
    steps, best_steps = latest.steps(), best.steps()
    if not steps and not best_steps:
        raise UserError(f"{workdir} holds no checkpoints: has it been trained?")
    regular = regular_steps(steps, config.training.checkpoint_every)
    average = _Choice("average", latest, regular, decoding.average_checkpoints)
    newest_best = _Choice("best", best, best_steps, 1)
    match decoding.checkpoint:
        case "auto":
            if best_steps and _ended_early(latest, config):
                note = (
                    f"Training ended early, as BLEU no longer rose: the parameters are those of "
                    f"step {best_steps[-1]:,}, the best (--checkpoint average takes the last ones)"
                )
                return newest_best._replace(notes=(note,))
            return average
        case "average":
            return average
        case "latest":
            return _Choice("latest", latest, steps, 1)
        case "best":
            if not best_steps:
                raise UserError(f"{workdir} holds no best checkpoint: use --checkpoint average")
            return newest_best
        case step:
            for folder, present in ((latest, steps), (best, best_steps)):
                if step in present:
                    return _Choice(f"step {step}", folder, [step], 1)
            known = ", ".join(map(str, sorted({*steps, *best_steps})))
            raise UserError(f"--checkpoint is {step}, but {workdir} holds only {known}")


def _ended_early(latest: CheckpointFolder, config: Config) -> bool:
    """Returns whether patience had run out at the newest checkpoint that can be read."""
    for step in reversed(latest.steps()):
        try:
            latest.check(step)
            return latest.progress(step).out_of_patience(config)
        except DamagedCheckpointError:
            continue
    return False
