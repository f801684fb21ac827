"""The loop of training: one step after the other, and everything else at its interval."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import jax

from flax_transformer.batch import Batch
from flax_transformer.checkpoints.writing import Checkpoints
from flax_transformer.data.pipeline import read_batches
from flax_transformer.errors import FlaxTransformerError
from flax_transformer.parallel.console import Console
from flax_transformer.parallel.hosts import from_first_process, is_first_process
from flax_transformer.runtime.interruption import InterruptedRunError
from flax_transformer.runtime.program import Program
from flax_transformer.training.divergence import require_finite
from flax_transformer.training.log import TrainingLog
from flax_transformer.training.step import jit_train_step
from flax_transformer.training.validation import Validation

if TYPE_CHECKING:
    from flax_transformer.training.run import Run

_GO_ON = "the same command goes on from there."


def train(run: Run) -> None:
    """Trains until all steps are done, BLEU no longer rises, or someone asks to stop."""
    settings = run.config.training
    with start_training(run) as trainer:
        for batch in trainer.batches():
            trainer.take_step(batch)
            if run.step % settings.log_every == 0:
                trainer.log()
            if run.step % settings.evaluate_every == 0 or run.step == settings.steps:
                trainer.validate()
            if trainer.checkpoint_is_due():
                trainer.save()
            if trainer.should_stop():
                break


@contextmanager
def start_training(run: Run) -> Iterator[Trainer]:
    """Makes the trainer of `run`; in the end waits for all checkpoints and closes the run.

    In the body a signal only asks to stop. `InterruptedRunError`, which follows where a validation
    or a compilation is cut short, ends the body and is no error. An unforeseen error saves first.
    """
    if run.only_look:
        raise ValueError(f"{run.workdir} is open to be looked at (only_look), not to be trained")
    with run, run.interruption, closing(TrainingLog(run.config, run.workdir, run.step)) as log:
        checkpoints = Checkpoints(run.workdir, run.config, Console.warn)
        if is_first_process():
            checkpoints.remove_unfinished()
        trainer = Trainer(run, log, checkpoints)
        try:
            yield trainer
        except InterruptedRunError:
            trainer.stop()
        except BaseException as error:
            expected = isinstance(error, FlaxTransformerError)
            alone = jax.process_count() == 1
            # Of several processes the others may not come here, and a write that waits for one
            # that is gone would never end.
            if isinstance(error, Exception) and not expected and alone:
                trainer.rescue()
            if expected or alone:
                checkpoints.close()
            raise
        checkpoints.close()


class Trainer:
    """What the loop does; changes the `state`, `step` and `progress` of the run."""

    def __init__(self, run: Run, log: TrainingLog, checkpoints: Checkpoints):
        self.run, self.checkpoints = run, checkpoints
        self.console, self._log = log.console, log
        self.validation = Validation(run)
        self._train_step = Program(jit_train_step(run.config, run.mesh, run.state))
        self._pending: tuple[int, dict[str, Any]] | None = None
        self._saved_at = time.monotonic()

    def batches(self) -> Iterator[Batch]:
        """Gives the batches still to train on, laid out over the devices.

        A validation that was cut short when the run was stopped comes first.
        """
        run, say = self.run, self.console.say
        if self._validation_is_due():
            say(f"Going on with the validation of step {run.step:,}.")
            self.validate()
            self.save()
        if run.finished:
            say(f"This run is complete: {run.step:,} steps are done.")
            return
        if run.step:
            say(f"Going on after step {run.step:,}.")
        say("Compiling the training step...")
        steps = range(run.step, run.config.training.steps)
        for batch in read_batches(run.data.train, steps, run.own_rows):
            yield run.place(batch)

    def _validation_is_due(self) -> bool:
        """Whether the run was stopped in the middle of a validation."""
        run, settings = self.run, self.run.config.training
        if not run.step or run.progress.validated_step in (None, run.step):
            return False
        return run.step % settings.evaluate_every == 0 or run.step == settings.steps

    def take_step(self, batch: Batch) -> None:
        """Dispatches one step, and reads the metrics of the one before, which is done by then.

        Raises `DivergedError` where the step before has left numbers that are not finite.
        """
        run = self.run
        self._train_step.compile(run.interruption, run.state, batch, run.key)
        if run.step == run.first_step:
            # From here on all time is that of steps whose tokens count.
            jax.block_until_ready((run.state, batch))
            self.console.say(f"Compiled in {self._train_step.seconds:.1f} s.")
            self.console.restart()
        with jax.transfer_guard("disallow"):
            run.state, sums = self._train_step(run.state, batch, run.key)
        self._collect()
        run.step += 1
        self._pending = run.step, sums
        self.console.step()

    def _collect(self) -> None:
        """Waits for the newest metrics; afterwards the state is known to be finite."""
        if self._pending is None:
            return
        (step, sums), self._pending = jax.device_get(self._pending), None
        require_finite(sums, step, self.checkpoints, self.run.workdir)
        self._log.add(sums)

    def log(self) -> None:
        """Writes the means since the last time."""
        self._collect()
        self._log.write(self.run.step)

    def validate(self) -> None:
        """Measures loss and greedy BLEU on the validation split; keeps the best parameters.

        Raises `InterruptedRunError` when asked to stop meanwhile; the run begins with it then.
        """
        self._collect()
        run = self.run
        with self.console.paused():
            values = self.validation.measure(run.state.params)
            run.progress, best = run.progress.after_validation(
                run.step, values["bleu"], values["loss"], run.config
            )
            self._log.write_validation(run.step, values, best)
            if best:
                self.checkpoints.save_best(run.step, run.state.params, run.progress)

    def checkpoint_is_due(self) -> bool:
        """Whether to save after this step: at an interval of steps or of minutes, or at the end."""
        step, settings = self.run.step, self.run.config.training
        if step % settings.checkpoint_every == 0 or step == settings.steps:
            return True
        if not settings.checkpoint_minutes:
            return False
        due = time.monotonic() - self._saved_at >= 60 * settings.checkpoint_minutes
        if jax.process_count() == 1:
            return due
        # Clocks differ: the first process decides for all, where they meet anyway.
        return step % settings.log_every == 0 and from_first_process(lambda: due)

    def save(self) -> None:
        """Writes a checkpoint in the background, of finite numbers and while the lock is ours.

        Raises `CheckpointError` where neither this one nor the one before can be written.
        """
        self._collect()
        run, state = self.run, self.run.state
        if run.lock:
            run.lock.check()
        with self.console.paused():
            self.checkpoints.save(run.step, state.params, state.optimizer_state, run.progress)
        self._saved_at = time.monotonic()

    def should_stop(self) -> bool:
        """Whether someone has asked to stop, or patience is over; if so, saves where it stands."""
        if self.run.interruption.reached():
            self.stop()
        elif self.run.out_of_patience:
            since = self.run.progress.validations_since_best
            self.stop(f"Stopping: no better BLEU in {since} validations.")
        else:
            return False
        return True

    def stop(self, line: str | None = None) -> None:
        """Says that the run stops where it stands, and saves it there."""
        self.console.say(line or f"Stopping after step {self.run.step:,}; {_GO_ON}")
        if self.run.step > self.run.first_step:
            self.save()

    def rescue(self) -> None:
        """Saves the state, if there still is one, before an error ends the program."""
        with suppress(Exception):
            self.save()
            self.console.say(f"Saved step {self.run.step:,} before the error below; {_GO_ON}")
