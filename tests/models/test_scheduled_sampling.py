"""Scheduled sampling: its two ends are known, and its share falls as the paper says."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.samples import recurrent

from flax_transformer.config import Config, TrainingConfig
from flax_transformer.errors import UserError
from flax_transformer.models import build_model
from flax_transformer.training.step import train_step
from flax_transformer.training.teacher_forcing import teacher_forcing_ratio


@pytest.fixture(scope="module", params=["general", "concat"])
def model(request, small_config, random_params):
    """(batch, teacher forcing or None) -> features, and from target inputs to the next tokens."""
    config = recurrent(small_config, request.param)
    module = build_model(config.model, 304)
    variables = {"params": jax.device_put(random_params(config))}

    @jax.jit
    def features(batch, *ratio):
        return module.apply(variables, batch, *ratio, rngs={"dropout": jax.random.key(0)})

    @jax.jit
    def tokens(batch):
        logits = module.apply(variables, module.apply(variables, batch), method="logits")
        return logits.argmax(axis=-1)

    return features, tokens


def test_all_true_is_teacher_forcing(model, packed_batch):
    features, _ = model
    chex.assert_trees_all_equal(features(packed_batch, jnp.float32(1)), features(packed_batch))


def test_none_true_is_greedy(model, packed_batch):
    """Found without the model's own loop: feed, read, and feed what was read one place further."""
    features, tokens = model
    begins = packed_batch.target_positions == 0
    inputs = packed_batch.target_inputs
    for _ in range(5):  # of the longest pair
        own = np.asarray(tokens(packed_batch._replace(target_inputs=inputs)))
        inputs = np.where(begins, packed_batch.target_inputs, np.roll(own, 1, axis=1))
    real = packed_batch.target_segments > 0
    assert (inputs != packed_batch.target_inputs)[real & ~begins].mean() > 0.9
    expected = features(packed_batch._replace(target_inputs=inputs))
    found = features(packed_batch, jnp.float32(0))
    chex.assert_trees_all_close(found[real], expected[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("linear", lambda i: max(0.25, 1 - i / 50)),
        ("exponential", lambda i: max(0.25, np.exp(-i / 50))),
        ("inverse_sigmoid", lambda i: max(0.25, 50 / (50 + np.exp(i / 50)))),
    ],
)
def test_share_falls(decay, expected):
    config = TrainingConfig(
        teacher_forcing=decay, teacher_forcing_steps=50, teacher_forcing_floor=0.25
    )
    for step in (0, 1, 20, 200, 100_000):
        ratio = teacher_forcing_ratio(config, jnp.int32(step))
        np.testing.assert_allclose(ratio, expected(step) if step < 10_000 else 0.25, rtol=1e-5)
    assert teacher_forcing_ratio(TrainingConfig(), jnp.int32(7)) is None


def test_training_step_samples_as_the_schedule_says(small_config, initial_recurrent, packed_batch):
    config, state = initial_recurrent

    def losses(steps, **training):
        settings = dataclasses.replace(config.training, **training)
        changed = dataclasses.replace(config, training=settings)
        run = jax.jit(functools.partial(train_step, changed))
        return [
            [
                float(
                    run(state._replace(step=np.int32(n)), packed_batch, jax.random.key(k))[1][
                        "loss"
                    ]
                )
                for k in (0, 1)
            ]
            for n in steps
        ]

    [always] = losses([0])
    begin, middle, end = losses([0, 5, 10], teacher_forcing="linear", teacher_forcing_steps=10)
    assert begin == always
    assert middle[0] != middle[1]  # which tokens are true depends on the key
    assert end[0] == end[1] != always[0]


def test_transformer_cannot_sample():
    with pytest.raises(UserError, match=r"teacher_forcing is linear.*use always"):
        Config(training=TrainingConfig(teacher_forcing="linear"))
    with pytest.raises(UserError, match="teacher_forcing_floor is 2"):
        TrainingConfig(teacher_forcing_floor=2.0)
