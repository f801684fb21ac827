"""The checkpoints of one folder as they are read: checked, and restored on any mesh."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from flax_transformer.checkpoints.files import DamagedCheckpointError, check_whole, list_steps
from flax_transformer.checkpoints.orbax_errors import reason
from flax_transformer.checkpoints.progress import Progress
from flax_transformer.checkpoints.writing import PROGRESS
from flax_transformer.parallel.hosts import from_first_process


class GoneError(Exception):
    """Training has removed a checkpoint that was being read."""


@dataclass
class CheckpointFolder:
    """The checkpoints in one folder.

    directory: the folder
    items:     folders wanted from each checkpoint
    damaged:   what is wrong with damaged ones, by step

    Of several processes the first looks at the files, and all raise the same error.
    """

    directory: Path
    items: Sequence[str]

    def __post_init__(self) -> None:
        self.directory = self.directory.absolute()
        self.damaged: dict[int, str] = {}

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints, oldest first."""
        return from_first_process(lambda: list_steps(self.directory))

    def check(self, step: int) -> None:
        """Raises `DamagedCheckpointError` unless all files are what was written."""

        def check() -> str:
            try:
                check_whole(self.directory / str(step), self.items)
            except DamagedCheckpointError as error:
                return str(error)
            return ""

        if problem := from_first_process(check):
            raise self._problem(step, problem)

    def restore(self, step: int, item: str, template: Any) -> Any:
        """Returns `item` as arrays like those of `template`, all of them finite.

        Raises `DamagedCheckpointError` where that cannot be had, and `GoneError` where the
        checkpoint is no longer there.
        """
        try:
            with closing(ocp.StandardCheckpointer()) as checkpointer:
                restored = checkpointer.restore(self.directory / str(step) / item, template)
        except Exception as error:  # whatever Orbax and what it builds on raise
            raise self._problem(step, f"{item}: {reason(error)}") from None
        if not _all_finite(restored):
            raise DamagedCheckpointError(f"{item} holds numbers that are not finite")
        return restored

    def progress(self, step: int) -> Progress:
        """Returns what the run remembered at `step`; raises like `restore`."""
        try:
            with closing(ocp.Checkpointer(ocp.JsonCheckpointHandler())) as checkpointer:
                values = checkpointer.restore(self.directory / str(step) / PROGRESS)
            changes = tuple(values.pop("data_changes", ()))
            return Progress(**values, data_changes=changes)
        except Exception as error:
            raise self._problem(step, f"{PROGRESS}: {reason(error)}") from None

    def _problem(self, step: int, problem: str) -> Exception:
        if (self.directory / str(step)).exists():
            return DamagedCheckpointError(problem)
        return GoneError(problem)

    def describe_damaged(self) -> str:
        return "; ".join(f"{step}: {problem}" for step, problem in sorted(self.damaged.items()))


def _all_finite(tree: Any) -> bool:
    """Returns whether all numbers are finite, in every process.

    It is found out on the host, where nothing need be compiled.
    """
    finite = all(
        np.isfinite(shard.data).all()
        for leaf in jax.tree.leaves(tree)
        for shard in leaf.addressable_shards
        if shard.replica_id == 0
    )
    if jax.process_count() > 1:
        finite = bool(multihost_utils.process_allgather(np.int32(finite)).all())
    return bool(finite)
