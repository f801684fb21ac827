"""Tokens per second of a run, by a clock that a made-up step moves on."""

import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.parallel import console as console_module
from flax_transformer.parallel.console import Console
from flax_transformer.training.metrics import RunningMeans
from flax_transformer.training.trainer import Trainer

TOKENS = 7.0


class Clock:
    """Seconds since the start, of `time.perf_counter`."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Step:
    """Takes a minute to compile and two seconds to run."""

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
def trainer(monkeypatch, small_config) -> Trainer:
    """As much of one as takes steps, without a model."""
    monkeypatch.setattr(console_module, "time", clock := Clock())
    trainer = object.__new__(Trainer)
    trainer.config, trainer.first_step, trainer._step = small_config, 0, 0
    trainer.state, trainer.key, trainer.interruption = jnp.zeros(()), None, None
    trainer._pending, trainer._means, trainer.metrics = None, RunningMeans(), None
    trainer._train_step, trainer.console = Step(clock), Console(10, 0)
    return trainer


@pytest.mark.parametrize("log_every", [1, 4])
def test_every_token_that_counts_was_timed(trainer, monkeypatch, log_every):
    """From the first step on, and without its compilation."""
    logged = []
    monkeypatch.setattr(trainer, "_write", lambda kind, values: logged.append(values))
    for step in range(1, 9):
        trainer.take_step(jnp.zeros(()))
        if step % log_every == 0:
            trainer.log()
    assert [values["tokens_per_second"] for values in logged] == [TOKENS / 2] * (8 // log_every)
    assert sum(values["tokens"] for values in logged) == 8 * TOKENS
