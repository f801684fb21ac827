"""A run: what train.py's loop acts on."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import jax
import numpy as np

from flax_transformer.batch import Batch
from flax_transformer.checkpoints.writing import Checkpoints
from flax_transformer.config import Config
from flax_transformer.data.corpus import open_corpus
from flax_transformer.data.pipeline import read_batches
from flax_transformer.data.training_data import prepare_training_data
from flax_transformer.errors import ConfigError
from flax_transformer.evaluation.bleu_tokenizer import require_tokenizer
from flax_transformer.evaluation.evaluation import corpus_test_sets, report_on
from flax_transformer.evaluation.report import report_path
from flax_transformer.parallel.console import Console
from flax_transformer.parallel.hosts import (
    first_process_first,
    from_first_process,
    is_first_process,
)
from flax_transformer.parallel.sharding import (
    build_mesh,
    check_rows,
    own_rows,
    place_rows,
    replicated,
)
from flax_transformer.runtime.interruption import InterruptedRunError, Interruption
from flax_transformer.runtime.invocation import how_to_start
from flax_transformer.runtime.program import Program
from flax_transformer.training.metrics import MetricsWriter, RunningMeans
from flax_transformer.training.opening import open_state, warn_of_words_run_together
from flax_transformer.training.optimizer import learning_rate_schedule
from flax_transformer.training.run_lock import RunLock
from flax_transformer.training.run_settings import open_workdir, settle
from flax_transformer.training.step import jit_train_step
from flax_transformer.training.validation import Validation


class Trainer:
    """Opens the run in `workdir`, new or where it stopped; use it in a `with` statement.

    Raises `ConfigError` for settings, text or folders that cannot be used.
    """

    def __init__(
        self,
        config: Config,
        workdir: Path,
        *,
        accept_changed_data: bool = False,
        only_look: bool = False,
    ):
        """`accept_changed_data`: go on though the text is not the one of the run so far.

        `only_look`: leave the run as it is, also while another process trains it; not to be used in
        a `with` statement.
        """
        self.config, self.workdir = config, workdir
        self._only_look = only_look
        self._lock: RunLock | None = None
        with ExitStack() as resources:
            self._open(accept_changed_data, resources)
            self._resources = resources.pop_all()

    def _open(self, accept_changed_data: bool, resources: ExitStack) -> None:
        workdir = self.workdir
        self.mesh = build_mesh(self.config.mesh)
        check_rows(self.config, self.mesh)
        self.own_rows = own_rows(self.mesh, self.config.batch.rows)
        with first_process_first():
            if is_first_process() and not self._only_look:
                self._lock = resources.enter_context(RunLock(workdir))
            device = self.mesh.devices.flat[0]
            self.config = config = settle(workdir, self.config, device, Console.warn)
            if not self._only_look:
                require_tokenizer(config.training.bleu_tokenizer, "--training.bleu-tokenizer")
            open_workdir(workdir, config, only_look=self._only_look)
            self.corpus = open_corpus(config.data)
            Console.say(f"{self.corpus.describe()}\nwork directory: {workdir}")
            Console.say(f"matrix products in {config.model.compute_dtype}")
            self.data = prepare_training_data(self.corpus, config, workdir)
        for note in self.data.notes:
            Console.say(note)
        warn_of_words_run_together(self.corpus, config)
        self.checkpoints = Checkpoints(workdir, config, Console.warn)
        self.state, self.progress = open_state(
            workdir, config, self.mesh, self.corpus, self.data,
            accept_changed_data=accept_changed_data, leave_as_is=self._only_look,
        )  # fmt: skip
        self.first_step = int(jax.device_get(self.state.step))
        self._step = self.first_step
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._means = RunningMeans()
        self.interruption = Interruption()
        everywhere = replicated(self.mesh)
        self.key = jax.jit(jax.random.key, out_shardings=everywhere)(config.training.seed + 1)
        self._train_step = Program(jit_train_step(config, self.mesh, self.state))
        self.validation = Validation(config, self.mesh, self.corpus, self.data, self.interruption)

    def __enter__(self) -> "Trainer":
        self.interruption.__enter__()
        first = is_first_process()
        if first:
            self.checkpoints.remove_unfinished()
        self.metrics = MetricsWriter(self.workdir, self.first_step) if first else None
        self.console = Console(self.config.training.steps, self.first_step)
        self._saved_at = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Saves where the run stands when it was asked to stop, which is no error any more, and
        tries to when something unforeseen ends it."""
        interrupted = isinstance(error, InterruptedRunError)
        try:
            if interrupted:
                self._stop(f"Stopping after step {self._step:,}; {_GO_ON}")
            elif isinstance(error, Exception) and not isinstance(error, ConfigError):
                self._rescue()
            # A write that waits for a process that is gone would never end.
            if error is None or interrupted or isinstance(error, ConfigError) or _is_alone():
                self.checkpoints.close()
        finally:
            self.console.close()
            self.interruption.__exit__(kind, error, traceback)
            if self.metrics:
                self.metrics.close()
            self._resources.close()
        return interrupted

    def _rescue(self) -> None:
        """Saves the state, if there still is one, before an error ends the program."""
        if not _is_alone():  # of several processes the others may not come here
            return
        with suppress(Exception):
            self.save()
            self.console.say(f"Saved step {self._step:,} before the error below; {_GO_ON}")

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self._step

    @property
    def out_of_patience(self) -> bool:
        patience = self.config.training.patience
        return 0 < patience <= self.progress.validations_since_best

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or BLEU has stopped rising."""
        return self._step >= self.config.training.steps or self.out_of_patience

    def batches(self) -> Iterator[Batch]:
        """The batches still to train on, laid out over the devices."""
        if self._validation_is_due():
            self.console.say(f"Going on with the validation of step {self._step:,}.")
            self.validate()
            self.save()
        if self.finished:
            self.console.say(f"This run is complete: {self._step:,} steps are done.")
            return
        if self._step:
            self.console.say(f"Going on after step {self._step:,}.")
        self.console.say("Compiling the training step...")
        steps = range(self._step, self.config.training.steps)
        for batch in read_batches(self.data.train, steps, self.own_rows):
            yield self.place(batch)

    def _validation_is_due(self) -> bool:
        """Whether the run was stopped in the middle of a validation."""
        every, validated = self.config.training.evaluate_every, self.progress.validated_step
        if not self._step or validated is None or validated == self._step:
            return False
        return self._step % every == 0 or self._step == self.config.training.steps

    def place(self, own: Batch) -> Batch:
        """A batch over the devices, of which this process has made its `own_rows`."""
        return place_rows(self.mesh, self.config.batch.rows, own)

    def take_step(self, batch: Batch) -> None:
        """Dispatches one step; reads the metrics of the one before, which is done by then.

        Raises `ConfigError` where the step before has left numbers that are not finite.
        """
        self._train_step.compile(self.interruption, self.state, batch, self.key)
        if self._step == self.first_step:
            # From here on all time is that of steps whose tokens count.
            jax.block_until_ready((self.state, batch))
            self.console.restart()
        with jax.transfer_guard("disallow"):
            self.state, sums = self._train_step(self.state, batch, self.key)
        self._collect()
        self._step += 1
        self._pending = self._step, sums
        self.console.step()

    def _collect(self) -> None:
        """Waits for the newest metrics; afterwards the state is known to be finite."""
        if self._pending is None:
            return
        (step, sums), self._pending = jax.device_get(self._pending), None
        finite = {
            "the loss": np.isfinite(sums["loss"]),
            "the gradient": np.isfinite(sums["gradient_norm"]),
            "the parameters": sums.pop("parameters_finite"),
        }
        if not all(finite.values()):
            raise ConfigError(self._explain_not_finite(step, finite))
        self._means.add(sums)

    def _explain_not_finite(self, step: int, finite: dict[str, bool]) -> str:
        what = next(name for name, is_finite in finite.items() if not is_finite)
        newest = self.checkpoints.newest()
        kept = "No checkpoint had been written"
        if newest is not None:
            kept = f"Step {newest:,} is the newest checkpoint in {self.workdir}, and finite"
        return (
            f"{what} became infinite or not a number in step {step:,}. {kept}; nothing was written "
            "since. Lower optimizer.learning_rate_scale or set optimizer.clip_norm, in a new work "
            "directory"
        )

    def log(self) -> None:
        """Writes the means since the last time."""
        self._collect()
        values = self._means.means()
        self._means = RunningMeans()
        values["tokens_per_second"] = self.console.log(self._step, values)
        rate = learning_rate_schedule(self.config)(self._step - 1)
        values["learning_rate"] = float(jax.device_get(rate))
        self._write("train", values)

    def _write(self, kind: str, values: dict[str, float]) -> None:
        if self.metrics:
            self.metrics.write(self._step, kind, values)

    def validate(self) -> None:
        """Loss, perplexity and greedy BLEU on the validation split; keeps the best checkpoint.

        Raises `InterruptedRunError` when asked to stop meanwhile; the run begins with it then.
        """
        self._collect()
        self.console.pause()
        started = time.perf_counter()
        values = self.validation.measure(self.state.params)
        values["seconds"] = time.perf_counter() - started
        self._write("validation", values)
        self.progress, best = self.progress.after_validation(
            self._step, values["bleu"], values["loss"], self.config
        )
        self.console.say(
            f"step {self._step:,}: validation loss {values['loss']:.4f}, perplexity "
            f"{values['perplexity']:.2f}, greedy BLEU {values['bleu']:.2f}"
            + (" (best so far)" if best else "")
        )
        if best:
            self.checkpoints.save_best(self._step, self.state.params, self.progress)
        self.console.go_on()

    def checkpoint_is_due(self) -> bool:
        """Whether to save after this step: at an interval of steps or of minutes, or at the end."""
        settings = self.config.training
        if self._step % settings.checkpoint_every == 0 or self._step == settings.steps:
            return True
        if not settings.checkpoint_minutes:
            return False
        due = time.monotonic() - self._saved_at >= 60 * settings.checkpoint_minutes
        if _is_alone():
            return due
        # Clocks differ: the first process decides for all, where they meet anyway.
        return self._step % settings.log_every == 0 and from_first_process(lambda: due)

    def save(self) -> None:
        """Writes a checkpoint in the background; only of numbers that are finite, and only while
        nobody else trains here."""
        self._collect()
        if self._lock:
            self._lock.check()
        self.console.pause()
        state = self.state
        self.checkpoints.save(self._step, state.params, state.optimizer_state, self.progress)
        self._saved_at = time.monotonic()
        self.console.go_on()

    def report(self) -> None:
        """Scores the test splits with the averaged checkpoints, and says what to type next.

        A run that was complete before is scored only where its scores are missing.
        """
        test_sets = corpus_test_sets(self.corpus, self.config)
        if self.first_step == self._step:
            test_sets = [one for one in test_sets if not report_path(self.workdir, one).exists()]
        if test_sets:
            # TER is left to evaluate.py: it takes longer than all the rest.
            report_on(self.workdir, self.config, test_sets, samples=10, metrics=("bleu", "chrf"))
        Console.say(
            f"Next: translate something of your own,\n"
            f'  echo "..." | {how_to_start("translate")} --workdir {self.workdir}\n'
            f"or look at the curves,\n  tensorboard --logdir {self.workdir}"
        )

    def should_stop(self) -> bool:
        """After Ctrl-C, SIGTERM or when out of patience; saves where the run stands."""
        if self.interruption.reached():
            self._stop(f"Stopping after step {self._step:,}; {_GO_ON}")
        elif self.out_of_patience:
            since = self.progress.validations_since_best
            self._stop(f"Stopping: no better BLEU in {since} validations.")
        else:
            return False
        return True

    def _stop(self, line: str) -> None:
        self.console.say(line)
        if self._step > self.first_step:
            self.save()


_GO_ON = "the same command goes on from there."


def _is_alone() -> bool:
    return jax.process_count() == 1
