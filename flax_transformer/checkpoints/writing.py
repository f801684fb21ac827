"""Checkpoints: written in the background, whole or not at all."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from flax_transformer.checkpoints.files import (
    list_steps,
    remove_checkpoint,
    remove_unfinished,
    temporary_folder,
    write_checksums,
)
from flax_transformer.checkpoints.orbax_errors import reason
from flax_transformer.checkpoints.progress import Progress
from flax_transformer.config import Config
from flax_transformer.errors import CheckpointError
from flax_transformer.parallel.hosts import is_first_process
from flax_transformer.workdir import BEST, CHECKPOINTS

PARAMS, OPTIMIZER, PROGRESS = "params", "optimizer", "progress"
"""Folders in a checkpoint."""


def regular_steps(steps: Sequence[int], every: int) -> list[int]:
    """Returns those of `steps`, oldest first, that are multiples of `every`, and the newest.

    So a run that was interrupted, and saved where it stood, averages over the same checkpoints as
    one that was not.
    """
    return [step for step in steps if step % every == 0 or step == steps[-1]]


class _Writer:
    """Writes the checkpoints of one folder.

    Once a new one is there, those are removed whose steps `keep` leaves out.
    """

    def __init__(self, directory: Path, keep: Callable[[Sequence[int]], Sequence[int]]):
        self.directory = directory.absolute()
        self._keep = keep
        self._step: int | None = None  # being written
        # Two writers may write the same step at the same time. Each has barriers of its own name,
        # or a process would take the other writer's barrier for its own.
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                barrier_sync_key_prefix=directory.name
            ),
        )

    def start(self, step: int, items: dict[str, Any]) -> None:
        """Copies the `items` and begins to write them, after `finish`."""
        checkpoint = self.directory / str(step)
        if is_first_process():
            self.directory.mkdir(exist_ok=True)
            remove_checkpoint(checkpoint)
        self._step = step
        self._checkpointer.save(checkpoint, args=ocp.args.Composite(**items))

    def _write_checksums(self) -> None:
        """Writes the checksums, in the first process.

        All files are there by then, and the folder does not have its name yet.
        """
        checkpoint = self.directory / str(self._step)
        unfinished = temporary_folder(checkpoint)
        write_checksums(unfinished if unfinished.is_dir() else checkpoint)

    def finish(self) -> bool:
        """Waits for what is being written; returns whether there was anything.

        Raises what went wrong with it.
        """
        step = self._step
        try:
            self._checkpointer.wait_until_finished()
        except BaseException:
            if is_first_process():
                remove_unfinished(self.directory)  # it takes the room that was missing
            raise
        finally:
            self._step = None
        if step is not None and is_first_process():
            steps = list_steps(self.directory)
            for old in set(steps).difference(self._keep(steps)):
                remove_checkpoint(self.directory / str(old))
        return step is not None

    def close(self) -> None:
        self._checkpointer.close()


def write_parameters(workdir: Path, step: int, params: Any, progress: Progress) -> None:
    """Writes a checkpoint without an optimizer's state, from which no run can go on.

    Raises `CheckpointError` where it cannot be written.
    """
    writer = _Writer(workdir / CHECKPOINTS, lambda steps: steps)
    try:
        writer.start(step, _items(params, progress))
        writer.finish()
    except Exception as error:  # whatever Orbax, its threads and the file system raise
        raise CheckpointError(
            f"a checkpoint could not be written to {writer.directory}: {reason(error)}"
        ) from None
    finally:
        writer.close()


def _items(params: Any, progress: Progress) -> dict[str, Any]:
    return {
        PARAMS: ocp.args.StandardSave(params),
        PROGRESS: ocp.args.JsonSave(asdict(progress)),
    }


class Checkpoints:
    """The checkpoints of a run that trains: the latest, and the best by validation BLEU.

    Where one cannot be written, `warn` gets a message and training goes on. Raises
    `CheckpointError` where the next one cannot be written either, and where the last one cannot.
    """

    def __init__(self, workdir: Path, config: Config, warn: Callable[[str], None] = print):
        self._training, self._warn = config.training, warn
        self._latest = _Writer(workdir / CHECKPOINTS, self._kept)
        self._best = _Writer(workdir / BEST, lambda steps: [self._best_step])
        self._best_step = -1
        self._saved: tuple[int, Progress] | None = None
        self._failures = 0

    def _kept(self, steps: Sequence[int]) -> Sequence[int]:
        every, count = self._training.checkpoint_every, self._training.keep_checkpoints
        return [*[step for step in steps if step % every == 0][-count:], *steps[-1:]]

    def remove_unfinished(self) -> None:
        """Removes what killed runs left; only for a run that nobody else writes to."""
        for writer in (self._latest, self._best):
            remove_unfinished(writer.directory)

    def newest(self) -> int | None:
        """Returns the step of the newest checkpoint, once written; None where there is none."""
        self._finish(self._latest)
        return max(list_steps(self._latest.directory), default=None)

    def save(self, step: int, params: Any, optimizer_state: Any, progress: Progress) -> None:
        """Starts writing a state, which must be finite, once the one before is written."""
        if self._saved == (step, progress):
            return
        optimizer = ocp.args.StandardSave(optimizer_state)
        self._start(self._latest, step, params, progress, {OPTIMIZER: optimizer})
        self._saved = (step, progress)

    def save_best(self, step: int, params: Any, progress: Progress) -> None:
        """Starts writing the parameters, which must be finite, in place of the best so far."""
        self._start(self._best, step, params, progress, {})
        self._best_step = step

    def _start(
        self,
        writer: _Writer,
        step: int,
        params: Any,
        progress: Progress,
        more: dict[str, Any],
    ) -> None:
        items = _items(params, progress)
        failure = self._finish(writer)
        failure = self._attempt(writer, partial(writer.start, step, items | more)) or failure
        if failure and self._failures > 1:
            raise CheckpointError(f"{failure}. {self._advice()}")
        if failure:
            self._warn(f"{failure}. Training goes on, and writes the next one")

    def _finish(self, writer: _Writer) -> str | None:
        def finish() -> None:
            if writer.finish():
                self._failures = 0

        return self._attempt(writer, finish)

    def _attempt(self, writer: _Writer, action: Callable[[], None]) -> str | None:
        """Runs `action`; returns what the user should know if it fails."""
        try:
            action()
        except Exception as error:  # whatever Orbax, its threads and the file system raise
            self._failures += 1
            return f"a checkpoint could not be written to {writer.directory}: {reason(error)}"
        return None

    def _advice(self) -> str:
        newest = max(list_steps(self._latest.directory), default=None)
        kept = "none has been written" if newest is None else f"step {newest:,} is kept"
        return f"Correct that, then give the same command again ({kept})"

    def close(self) -> None:
        """Waits until everything is written; raises `CheckpointError` where it could not be."""
        writers = (self._latest, self._best)
        failures = [self._finish(writer) for writer in writers]
        failures += [self._attempt(writer, writer.close) for writer in writers]
        if failure := next(filter(None, failures), None):
            raise CheckpointError(f"{failure}. {self._advice()}")
