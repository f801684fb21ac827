"""A run: what train.py's loop acts on."""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import jax
import numpy as np

from flax_transformer.config import Config
from flax_transformer.config_error import ConfigError
from flax_transformer.data.corpus import open_corpus
from flax_transformer.data.packing import Batch
from flax_transformer.data.pairs import Pair
from flax_transformer.data.pipeline import read_batches
from flax_transformer.data.training_data import prepare_training_data
from flax_transformer.evaluation.evaluation import corpus_test_sets, report_on
from flax_transformer.evaluation.report import report_path
from flax_transformer.evaluation.scores import bleu_only
from flax_transformer.evaluation.translator import Hypothesis, Translator
from flax_transformer.hosts import first_process_first, is_first_process
from flax_transformer.sharding import (
    build_mesh,
    check_rows,
    own_rows,
    place_rows,
    replicated,
)
from flax_transformer.training.checkpoints import Checkpoints, Progress
from flax_transformer.training.console import Console
from flax_transformer.training.interruption import Interruption
from flax_transformer.training.metrics import MetricsWriter, RunningMeans
from flax_transformer.training.optimizer import learning_rate_schedule
from flax_transformer.training.state import TrainState, count_parameters, create_state
from flax_transformer.training.step import jit_train_step, jit_validation_step
from flax_transformer.training.workdir import open_workdir


class Trainer:
    """Opens the run in `workdir`, new or where it stopped; use it in a `with` statement.

    Raises `ConfigError` for settings, text or folders that cannot be used.
    """

    def __init__(self, config: Config, workdir: Path):
        self.config, self.workdir = config, workdir
        self.mesh = build_mesh(config.mesh)
        check_rows(config, self.mesh)
        self.own_rows = own_rows(self.mesh, config.batch.rows)
        with first_process_first():
            open_workdir(workdir, config)
            self.corpus = open_corpus(config.data)
            Console.say(f"{self.corpus.describe()}\nwork directory: {workdir}")
            self.data = prepare_training_data(self.corpus, config, workdir)
        for note in self.data.notes:
            Console.say(note)
        self.checkpoints = Checkpoints(workdir, config)
        self.state, self.progress = self._open_state()
        self.first_step = int(jax.device_get(self.state.step))
        self._step = self.first_step
        self._pending: dict[str, jax.Array] | None = None
        self._means = RunningMeans()
        everywhere = replicated(self.mesh)
        self.key = jax.jit(jax.random.key, out_shardings=everywhere)(config.training.seed + 1)
        self._train_step = jit_train_step(config, self.mesh, self.state)
        self._validation_step = jit_validation_step(config, self.mesh)
        # Validation looks at progress, for which greedy search is enough.
        greedy = dataclasses.replace(config.decoding, beam_size=1)
        self._translator = Translator(
            dataclasses.replace(config, decoding=greedy), self.data.tokenizer, self.mesh
        )

    def _open_state(self) -> tuple[TrainState, Progress]:
        restored = self.checkpoints.restore(self.config, self.mesh)
        fingerprint = self.data.tokenizer.fingerprint
        if restored is None:
            state = create_state(self.config, self.mesh)
            Console.say(
                f"{count_parameters(state.params):,} parameters on {self.mesh.size} device(s), "
                f"{self.data.train.steps_per_epoch:,.1f} steps an epoch"
            )
            return state, Progress(tokenizer=fingerprint)
        state, progress = restored
        if progress.tokenizer != fingerprint:
            raise ConfigError(
                f"{self.workdir}: the vocabulary is not the one that the checkpoints were trained "
                "with; put tokenizer.model back"
            )
        return state, progress

    def __enter__(self) -> "Trainer":
        self._interruption = Interruption().__enter__()
        first = is_first_process()
        self.metrics = MetricsWriter(self.workdir, self.first_step) if first else None
        self.console = Console(self.config.training.steps, self.first_step)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.console.close()
        self._interruption.__exit__(kind, error, traceback)
        # A write that waits for a process that is gone would never end.
        if kind is None or issubclass(kind, ConfigError) or jax.process_count() == 1:
            self.checkpoints.close()
        if self.metrics:
            self.metrics.close()

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
        if self.finished:
            self.console.say(f"This run is complete: {self._step:,} steps are done.")
            return
        if self._step:
            self.console.say(f"Going on after step {self._step:,}.")
        self.console.say("Compiling the training step...")
        steps = range(self._step, self.config.training.steps)
        for batch in read_batches(self.data.train, steps, self.own_rows):
            yield self.place(batch)

    def place(self, own: Batch) -> Batch:
        """A batch over the devices, of which this process has made its `own_rows`."""
        return place_rows(self.mesh, self.config.batch.rows, own)

    def take_step(self, batch: Batch) -> None:
        """Dispatches one step; reads the metrics of the one before, which is done by then."""
        with jax.transfer_guard("disallow"):
            self.state, sums = self._train_step(self.state, batch, self.key)
        self._collect()
        self._pending = sums
        self._step += 1
        self.console.step()
        if self._step == self.first_step + 1:
            jax.block_until_ready(self.state)
            self.console.restart()

    def _collect(self) -> None:
        if self._pending is None:
            return
        sums = jax.device_get(self._pending)
        self._pending = None
        if not np.isfinite(sums["loss"]):
            raise ConfigError(
                f"the loss is not a finite number any more at step {self._step}; the last "
                f"checkpoint in {self.workdir} is from before. Lower optimizer.learning_rate_scale "
                "or set optimizer.clip_norm, in a new work directory"
            )
        self._means.add(sums)

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
        """Loss, perplexity and greedy BLEU on the validation split; keeps the best checkpoint."""
        self.console.pause()
        started = time.perf_counter()
        values = self.mean_loss(self.data.validation.once(self.own_rows))
        pairs, hypotheses = self.translate_validation(self.config.training.validation_sentences)
        references = [target for _, target in pairs]
        values["bleu"] = bleu_only([best.text for best in hypotheses], references)
        values["seconds"] = time.perf_counter() - started
        self._write("validation", values)
        best = self.progress.best_bleu is None or values["bleu"] > self.progress.best_bleu
        self.console.say(
            f"step {self._step:,}: validation loss {values['loss']:.4f}, perplexity "
            f"{values['perplexity']:.2f}, greedy BLEU {values['bleu']:.2f}"
            + (" (best so far)" if best else "")
        )
        if best:
            self.progress = dataclasses.replace(
                self.progress, best_bleu=values["bleu"], validations_since_best=0
            )
            self.checkpoints.save_best(self.state, self.progress)
        else:
            since = self.progress.validations_since_best + 1
            self.progress = dataclasses.replace(self.progress, validations_since_best=since)
        self.console.go_on()

    def mean_loss(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Loss, perplexity and accuracy of `batches`, of each its `own_rows`, without dropout."""
        means = RunningMeans()
        for own in batches:
            sums = self._validation_step(self.state.params, self.place(own))
            means.add(jax.device_get(sums)._asdict())
        return means.means()

    def translate_validation(self, most: int) -> tuple[list[Pair], list[Hypothesis]]:
        """Up to `most` pairs of the validation split, and what greedy search makes of each."""
        pairs = self.corpus.split(self.corpus.validation)[:most]
        lines = self._translator.translate(
            self.state.params, [source for source, _ in pairs], progress="Validation"
        )
        return pairs, [hypotheses[0] for hypotheses in lines]

    def save(self) -> None:
        """Writes a checkpoint in the background."""
        self.console.pause()
        self.checkpoints.save(self.state, self.progress)
        self.console.go_on()

    def report(self) -> None:
        """Scores the test splits with the averaged checkpoints, and says what to type next.

        A run that was complete before is scored only where its scores are missing.
        """
        test_sets = corpus_test_sets(self.corpus, self.config)
        if self.first_step == self._step:
            test_sets = [one for one in test_sets if not report_path(self.workdir, one).exists()]
        if test_sets:
            report_on(self.workdir, self.config, test_sets, samples=10)
        Console.say(
            f"Next: translate something of your own,\n"
            f'  echo "..." | python translate.py --workdir {self.workdir}\n'
            f"or look at the curves,\n  tensorboard --logdir {self.workdir}"
        )

    def should_stop(self) -> bool:
        """After Ctrl-C, SIGTERM or when out of patience; saves where the run stands."""
        if self._interruption.reached(self._step):
            self.console.say(
                f"Stopping after step {self._step:,}; the same command goes on from there."
            )
        elif self.out_of_patience:
            self.console.say(
                f"Stopping: no better BLEU in {self.progress.validations_since_best} validations."
            )
        else:
            return False
        self.save()
        return True
