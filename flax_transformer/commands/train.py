"""Trains a translation model: python train.py --config configs/quickstart.py

Settings come from the config file and from flags (--training.steps 1000); results go to the work
directory. The same command again goes on where the run stopped, exactly. With --dry-run the
training step is only compiled, for the devices at hand or for TPUs that are not there, and judged;
with --diagnose a run is only looked at, to say why it does not learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flax_transformer.commands.command_line import (
    TrainArguments,
    parse_train_arguments,
)
from flax_transformer.runtime.determinism import choose_deterministic_kernels

if TYPE_CHECKING:  # the libraries take seconds to load, which --help should not
    from flax_transformer.training.trainer import Trainer


def main(words: Sequence[str]) -> None:
    arguments = parse_train_arguments(words)
    if arguments.settings.training.deterministic:
        choose_deterministic_kernels()  # before jax is loaded, which reads them
    if arguments.dry_run:
        return dry_run(arguments)

    from flax_transformer.parallel.hosts import join_hosts, leaving_when_failing
    from flax_transformer.training.trainer import Trainer

    join_hosts(arguments.hosts)
    with leaving_when_failing():
        if arguments.diagnose:
            return diagnose(Trainer(arguments.settings, arguments.run_directory, only_look=True))
        with Trainer(
            arguments.settings,
            arguments.run_directory,
            accept_changed_data=arguments.accept_changed_data,
        ) as trainer:
            train(trainer)
        trainer.interruption.exit()
        if trainer.finished:
            trainer.report()


def train(trainer: Trainer) -> None:
    """The loop: one dispatch a step, and everything else at its interval."""
    settings = trainer.config.training
    for batch in trainer.batches():
        trainer.take_step(batch)
        done = trainer.step
        if done % settings.log_every == 0:
            trainer.log()
        if done % settings.evaluate_every == 0 or done == settings.steps:
            trainer.validate()
        if trainer.checkpoint_is_due():
            trainer.save()
        if trainer.should_stop():
            break


def diagnose(trainer: Trainer) -> None:
    """Says what keeps the run from learning, and leaves it as it is."""
    from flax_transformer.diagnosis import diagnosis

    diagnosis.diagnose(trainer)


def dry_run(arguments: TrainArguments) -> None:
    """Compiles the step that training would run, and says what it needs."""
    from flax_transformer.dry_run.topology import prepare_environment

    if arguments.topology:
        prepare_environment()  # before jax is loaded, which reads it

    from flax_transformer.dry_run.report import judge

    judge(arguments.settings, arguments.topology)
