"""The training step: what it learns, what it does not depend on, and how it is compiled."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pytest
from support.samples import draw_pairs

from flax_transformer.config import OptimizerConfig
from flax_transformer.data.packing import lay_out
from flax_transformer.data.token_cache import TokenizedPairs
from flax_transformer.runtime.compiler_options import (
    CPU_SEARCH,
    GPU_STEP,
    search_options,
    step_options,
)
from flax_transformer.training.step import train_step, validation_step


def configure(config, dropout=0.0, accumulation_steps=1):
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, dropout=dropout),
        training=dataclasses.replace(
            config.training, accumulation_steps=accumulation_steps, label_smoothing=0.0
        ),
        optimizer=OptimizerConfig(learning_rate_scale=0.5, warmup_steps=20),
    )


@pytest.fixture(scope="module")
def step(small_config):
    """The step without dropout, which refuses to be traced a second time."""
    config = configure(small_config)

    @chex.assert_max_traces(n=1)
    def step(state, batch, key):
        return train_step(config, state, batch, key)

    return jax.jit(step, donate_argnums=0)


@pytest.fixture
def state(initial_state):
    return jax.device_put(initial_state)


@pytest.fixture(scope="module")
def copies():
    """Eight rows of pairs whose target is their source."""
    source = draw_pairs(24, shortest=3, longest=6, vocabulary_size=60).source
    return lay_out(TokenizedPairs(source, source), np.split(np.arange(24), 12)[:8], 16, 16)


def test_overfits_a_copy_task(step, state, copies):
    losses = []
    for _ in range(100):
        state, metrics = step(state, copies, jax.random.key(0))
        losses.append(metrics["loss"] / metrics["tokens"])
    assert losses[0] > 4
    assert losses[-1] < 0.1
    assert metrics["correct"] == metrics["tokens"] == (copies.target_segments > 0).sum()
    assert state.step == 100


def test_donates_the_state(step, state, packed_batch):
    leaves = jax.tree.leaves(state)
    new, _ = step(state, packed_batch, jax.random.key(0))
    assert all(leaf.is_deleted() for leaf in leaves)
    chex.assert_tree_all_finite(new.params)


def test_accumulation_changes_nothing(step, state, small_config, packed_batch):
    config = configure(small_config, accumulation_steps=4)
    parts = jax.jit(functools.partial(train_step, config))(state, packed_batch, jax.random.key(0))
    whole = step(state, packed_batch, jax.random.key(0))
    chex.assert_trees_all_close(parts[1], whole[1], rtol=1e-5)
    moments = [
        [leaf for leaf in jax.tree.leaves(new.optimizer_state) if leaf.ndim]
        for new, _ in (parts, whole)
    ]
    chex.assert_trees_all_close(*moments, rtol=1e-4, atol=1e-6)


def test_dropout_depends_on_key_and_step(state, small_config, packed_batch):
    """And no dropout means neither matters, as in validation."""
    step = jax.jit(functools.partial(train_step, configure(small_config, dropout=0.3)))

    def loss(key, number):
        now = state._replace(step=np.int32(number))
        return float(step(now, packed_batch, jax.random.key(key))[1]["loss"])

    assert loss(0, 0) == loss(0, 0)
    assert len({loss(0, 0), loss(0, 1), loss(0, 2), loss(1, 0)}) == 4
    validate = jax.jit(functools.partial(validation_step, configure(small_config, dropout=0.3)))
    plain = jax.jit(functools.partial(validation_step, configure(small_config)))
    chex.assert_trees_all_equal(
        validate(state.params, packed_batch), plain(state.params, packed_batch)
    )


def test_a_platform_gets_options_that_the_user_has_not_set(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=true")
    assert step_options("cpu") is None and search_options("gpu") is None
    assert step_options("gpu") == {"xla_gpu_dot_merger_threshold_mb": 0}
    assert search_options("cpu") == CPU_SEARCH
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=true")
    assert step_options("cuda") == GPU_STEP
    assert search_options("cpu") == {}
