"""Restores the newest state of a run; damaged checkpoints are named and passed over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from flax_transformer.checkpoints.files import DamagedCheckpointError, set_aside
from flax_transformer.checkpoints.progress import Progress
from flax_transformer.checkpoints.reading import CheckpointFolder, GoneError
from flax_transformer.checkpoints.writing import OPTIMIZER, PARAMS, PROGRESS
from flax_transformer.errors import CheckpointError
from flax_transformer.parallel.hosts import is_first_process
from flax_transformer.workdir import CHECKPOINTS


class Restored(NamedTuple):
    """What a checkpoint of `step` holds, and what the run remembered then."""

    step: int
    params: Any
    optimizer_state: Any
    progress: Progress


def restore_newest(
    workdir: Path,
    params_like: Any,
    optimizer_state_like: Any,
    warn: Callable[[str], None] = print,
    leave_as_is: bool = False,
) -> Restored | None:
    """Returns the newest state that is whole and finite; None where there is no checkpoint at all.

    Any mesh may have written it. The arrays have the shardings of `params_like` and
    `optimizer_state_like`, which hold arrays or descriptions of arrays.

    Newer checkpoints that are damaged are named through `warn`, and set aside unless
    `leave_as_is`. Raises `CheckpointError` where all are damaged.
    """
    folder = CheckpointFolder(workdir / CHECKPOINTS, (PARAMS, OPTIMIZER, PROGRESS))
    steps = folder.steps()
    for step in reversed(steps):
        try:
            folder.check(step)
            params = folder.restore(step, PARAMS, params_like)
            optimizer = folder.restore(step, OPTIMIZER, optimizer_state_like)
            progress = folder.progress(step)
        except (DamagedCheckpointError, GoneError) as error:
            folder.damaged[step] = str(error)
            continue
        for damaged, problem in folder.damaged.items():
            name = folder.directory / str(damaged)
            if is_first_process() and not leave_as_is:
                name = set_aside(name)
            warn(f"checkpoint {damaged} is damaged ({problem}); it lies in {name}")
        return Restored(step, params, optimizer, progress)
    if folder.damaged:
        raise CheckpointError(
            f"{folder.directory} holds damaged checkpoints only ({folder.describe_damaged()}): put "
            "a copy of one back, or start anew with another --workdir"
        )
    return None
