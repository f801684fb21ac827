"""Trains a translation model: python train.py --config configs/quickstart.py

Settings come from the config file and from flags (--training.steps 1000); results go to the work
directory. The same command again goes on where the run stopped, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flax_transformer.command_line import parse_train_arguments, run_command

if TYPE_CHECKING:  # the libraries take seconds to load, which --help should not
    from flax_transformer.training.trainer import Trainer


def main(words: Sequence[str]) -> None:
    config, workdir, hosts = parse_train_arguments(words)

    from flax_transformer.hosts import join_hosts
    from flax_transformer.training.trainer import Trainer

    join_hosts(hosts)
    with Trainer(config, workdir) as trainer:
        train(trainer)
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
        if done % settings.checkpoint_every == 0 or done == settings.steps:
            trainer.save()
        if trainer.should_stop():
            break


if __name__ == "__main__":
    run_command(main)
