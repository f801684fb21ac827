"""Tokens per second of a run, by a clock that a made-up step moves on."""

from collections.abc import Iterator
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.parallel import console as console_module
from flax_transformer.training.log import TrainingLog
from flax_transformer.training.metrics import read_metrics
from flax_transformer.training.train_loop import Trainer

TOKENS = 7.0


class Clock:
    """Seconds since the start, of `time.perf_counter`."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Step:
    """Takes a minute to compile and two seconds to run."""

    seconds = 60.0

    def __init__(self, clock: Clock):
        self.clock = clock

    def compile(self, interruption, *arguments) -> None:
        if not self.clock.now:
            self.clock.now += 60

    def __call__(self, state, batch, key):
        self.clock.now += 2
        names = ("loss", "nll", "correct", "gradient_norm", "parameters_finite")
        return state, dict.fromkeys(names, np.float32(1)) | {"tokens": np.float32(TOKENS)}


@pytest.fixture
def trainer(monkeypatch, small_config, tmp_path) -> Iterator[Trainer]:
    """As much of one as takes steps, without a model."""
    monkeypatch.setattr(console_module, "time", clock := Clock())
    trainer = object.__new__(Trainer)
    trainer.run = SimpleNamespace(
        config=small_config, workdir=tmp_path, step=0, first_step=0, state=jnp.zeros(()), key=None,
        interruption=None,
    )  # fmt: skip
    trainer._log = TrainingLog(small_config, tmp_path, 0)
    trainer.console, trainer.checkpoints = trainer._log.console, None
    trainer._train_step, trainer._pending = Step(clock), None
    yield trainer
    trainer._log.close()


@pytest.mark.parametrize("log_every", [1, 4])
def test_every_token_that_counts_was_timed(trainer, tmp_path, log_every):
    """From the first step on, and without its compilation."""
    for step in range(1, 9):
        trainer.take_step(jnp.zeros(()))
        if step % log_every == 0:
            trainer.log()
    logged = read_metrics(tmp_path)
    assert [values["tokens_per_second"] for values in logged] == [TOKENS / 2] * (8 // log_every)
    assert sum(values["tokens"] for values in logged) == 8 * TOKENS
