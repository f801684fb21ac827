"""A run: the settings, the data, the state that is trained and how far it has come."""

import dataclasses
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.data.corpus import open_corpus
from flax_transformer.data.training_data import prepare_training_data
from flax_transformer.evaluation.bleu_tokenizer import require_tokenizer
from flax_transformer.parallel.console import Console
from flax_transformer.parallel.hosts import first_process_first, is_first_process
from flax_transformer.parallel.rows import check_rows, own_rows, place_rows
from flax_transformer.parallel.sharding import build_mesh, replicated
from flax_transformer.runtime.interruption import Interruption
from flax_transformer.training import train_loop
from flax_transformer.training.opening import open_state
from flax_transformer.training.run_lock import RunLock
from flax_transformer.training.run_settings import open_workdir, settle
from flax_transformer.training.same_text import warn_of_words_run_together
from flax_transformer.training.starting_point import copy_vocabulary

if TYPE_CHECKING:
    from flax_transformer.translation.trained_model import TrainedModel


class Run(AbstractContextManager):
    """Opens the run in a work directory, new or where it stopped: `Run(config, workdir).train()`.

    config           the settings, with nothing left to choose
    mesh             the devices
    corpus, data     the text, and its packed rows
    own_rows         those rows of every batch that this process makes
    state, progress  what is trained, and what is remembered beside it
    step             optimizer steps done; first_step: those when the run was opened
    key              of dropout, which each step folds with its number
    interruption     whether someone has asked to stop
    lock             on the work directory, in the first process
    """

    def __init__(
        self,
        config: Config,
        workdir: Path | str,
        *,
        start_from: "Path | str | TrainedModel | None" = None,
        accept_changed_data: bool = False,
        only_look: bool = False,
    ):
        """start_from: another run's work directory, or its model, in place of
        `config.training.start_from`.

        accept_changed_data: goes on although the text is not the one of the run so far.

        only_look: leaves the run as it is, also while another process trains it.

        Until `close` no other process can train in the work directory. Raises `UserError` for
        settings, text or folders that cannot be used.
        """
        if start_from is not None:
            start = start_from if isinstance(start_from, Path | str) else start_from.workdir
            training = dataclasses.replace(config.training, start_from=str(start))
            config = dataclasses.replace(config, training=training)
        self.config, self.workdir = config, Path(workdir)
        self.accept_changed_data, self.only_look = accept_changed_data, only_look
        self._open()

    def _open(self) -> None:
        with ExitStack() as resources:
            self._open_data(resources)
            warn_of_words_run_together(self.corpus, self.config)
            self.state, self.progress = open_state(
                self.workdir, self.config, self.mesh, self.corpus, self.data,
                accept_changed_data=self.accept_changed_data, leave_as_is=self.only_look,
            )  # fmt: skip
            self.step = self.first_step = int(jax.device_get(self.state.step))
            make_key = jax.jit(jax.random.key, out_shardings=replicated(self.mesh))
            self.key = make_key(self.config.training.seed + 1)
            self.interruption = Interruption()
            self._resources = resources.pop_all()
        self._is_open = True

    def _open_data(self, resources: ExitStack) -> None:
        """Locks the work directory and prepares in it what training reads."""
        config, workdir = self.config, self.workdir
        self.mesh = build_mesh(config.mesh)
        check_rows(config, self.mesh)
        self.own_rows = own_rows(self.mesh, config.batch.rows)
        self.lock: RunLock | None = None
        with first_process_first():
            if is_first_process() and not self.only_look:
                self.lock = resources.enter_context(RunLock(workdir))
            self.config = config = settle(workdir, config, self.mesh.devices.flat[0], Console.warn)
            if not self.only_look:
                require_tokenizer(config.training.bleu_tokenizer, "--training.bleu-tokenizer")
            open_workdir(workdir, config, only_look=self.only_look)
            self.corpus = open_corpus(config.data)
            Console.say(f"{self.corpus.describe()}\nwork directory: {workdir}")
            Console.say(f"matrix products in {config.model.compute_dtype}")
            if is_first_process() and not self.only_look:
                copy_vocabulary(config, workdir, self.corpus)
            self.data = prepare_training_data(self.corpus, config, workdir)
        for note in self.data.notes:
            Console.say(note)

    def train(self) -> None:
        """Trains until all steps are done, BLEU no longer rises, or someone asks to stop.

        Ctrl-C and SIGTERM ask to stop after the step at hand. The end saves and closes the run;
        called again, it goes on where it stopped.

        Raises `DivergedError` where a step leaves numbers that are not finite, and
        `CheckpointError` where checkpoints cannot be written.
        """
        if not self._is_open:
            self._open()
        train_loop.train(self)

    @property
    def out_of_patience(self) -> bool:
        """Whether BLEU has not risen in as many validations as `training.patience` allows."""
        return self.progress.out_of_patience(self.config)

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or BLEU has stopped rising."""
        return self.step >= self.config.training.steps or self.out_of_patience

    def place(self, own: Batch) -> Batch:
        """Lays a batch out over the devices, of which this process has made its `own_rows`."""
        return place_rows(self.mesh, self.config.batch.rows, own)

    def close(self) -> None:
        """Lets others train in the work directory; what has been read stays."""
        self._resources.close()
        self._is_open = False

    def __exit__(self, *error: object) -> None:
        self.close()
