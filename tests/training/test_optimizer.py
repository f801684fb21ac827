"""Adam and the learning rate of Section 5.3."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.config import Config, OptimizerConfig, TrainingConfig
from flax_transformer.training.optimizer import build_optimizer, learning_rate_schedule


def configure(steps=100_000, **optimizer) -> Config:
    return Config(optimizer=OptimizerConfig(**optimizer), training=TrainingConfig(steps=steps))


@pytest.mark.parametrize("warmup", [1, 10, 4000])
def test_schedule_is_equation_3(warmup):
    schedule = learning_rate_schedule(configure(warmup_steps=warmup, learning_rate_scale=2.0))
    compiled = jax.jit(schedule)
    peak = 2.0 * (512 * warmup) ** -0.5
    for step in sorted({1, 2, warmup - 1 or 1, warmup, warmup + 1, 2 * warmup, 90_000}):
        expected = 2.0 * 512**-0.5 * min(step**-0.5, step * warmup**-1.5)
        close = {"rtol": 1e-5, "atol": 1e-6 * peak}
        np.testing.assert_allclose(schedule(step - 1), expected, **close)
        np.testing.assert_allclose(compiled(jnp.int32(step - 1)), expected, **close)


def test_cooldown_falls_to_zero():
    settings = {"steps": 100, "warmup_steps": 10}
    paper = learning_rate_schedule(configure(**settings))
    cooled = learning_rate_schedule(configure(cooldown_steps=40, **settings))
    for count in range(61):
        np.testing.assert_allclose(cooled(count), paper(count), rtol=1e-5)
    np.testing.assert_allclose(cooled(80), paper(80) / 2, rtol=1e-5)
    np.testing.assert_allclose(cooled(99), paper(99) / 40, rtol=1e-4)
    assert cooled(100) == 0


def test_adam_is_the_papers():
    """Two updates against the formulas of Kingma and Ba 2015."""
    config = configure(warmup_steps=4)
    optimizer = build_optimizer(config)
    assert (config.optimizer.beta1, config.optimizer.beta2) == (0.9, 0.98)
    params = {"w": jnp.array([1.0, -2.0, 3.0])}
    state = optimizer.init(params)
    first = second = np.zeros(3)
    for step, gradient in enumerate([[0.1, -1e-9, 3.0], [0.2, 1e-9, -1.0]], start=1):
        updates, state = optimizer.update({"w": jnp.array(gradient)}, state, params)
        first = 0.9 * first + 0.1 * np.array(gradient)
        second = 0.98 * second + 0.02 * np.array(gradient) ** 2
        rate = 512**-0.5 * step * 4**-1.5
        direction = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.98**step)) + 1e-9)
        np.testing.assert_allclose(updates["w"], -rate * direction, rtol=1e-4)


def test_moments_are_float32():
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    optimizer = build_optimizer(configure())
    _, state = optimizer.update(params, optimizer.init(params), params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert len(moments) == 4
    chex.assert_type(moments, jnp.float32)


def test_clipping():
    """Adam hides a factor on all gradients, so two steps show it: after a small gradient, a huge
    one counts as much as one of the norm at which it is clipped."""

    def second_update(config, gradient):
        optimizer = build_optimizer(config)
        params = {"w": jnp.zeros(2)}
        state = optimizer.init(params)
        _, state = optimizer.update({"w": jnp.array([0.1, 0.2])}, state, params)
        return optimizer.update({"w": jnp.array(gradient)}, state, params)[0]["w"]

    clipped = configure(clip_norm=1.0)
    unclipped = dataclasses.replace(
        clipped, optimizer=dataclasses.replace(clipped.optimizer, clip_norm=None)
    )
    limit = second_update(unclipped, [0.6, 0.8])
    chex.assert_trees_all_close(second_update(clipped, [600.0, 800.0]), limit, rtol=1e-5)
    chex.assert_trees_all_close(second_update(clipped, [0.6, 0.8]), limit, rtol=1e-5)
    assert not np.allclose(second_update(unclipped, [600.0, 800.0]), limit, rtol=1e-2)
