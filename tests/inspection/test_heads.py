"""Heads masked and taken out of a model: what they added is gone, and all else is as before."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flax_transformer as ft
from flax_transformer.batch import Batch
from flax_transformer.config import TransformerConfig
from flax_transformer.dry_run.flops import model_flops
from flax_transformer.models import build_model
from flax_transformer.models.heads import all_heads, keep_heads, mask_heads, with_heads
from flax_transformer.training.step import validation_step

MASKS = {
    "encoder": np.float32([[0, 1, 0, 1], [1, 1, 0, 0]]),
    "decoder": np.float32([[0, 0, 0, 0], [0, 1, 0, 0]]),
    "cross": np.float32([[1, 1, 1, 1], [0, 0, 1, 1]]),
}
SLOTS = {"encoder_heads": 2, "decoder_heads": 1, "cross_heads": None}


@pytest.fixture(scope="module")
def config(small_config) -> ft.Config:
    model = dataclasses.replace(small_config.model, num_heads=4)
    return dataclasses.replace(small_config, model=model)


@pytest.fixture(scope="module")
def params(config, random_params):
    return random_params(config)


@pytest.fixture(scope="module")
def pruned(config, params):
    """The settings and the parameters of the model with the heads of MASKS alone."""
    model = with_heads(config.model, MASKS)
    return dataclasses.replace(config, model=model), keep_heads(params, MASKS)


@functools.partial(jax.jit, static_argnums=0)
def features(config: ft.Config, params, batch: Batch) -> jax.Array:
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    return model.apply({"params": params}, batch)


def test_a_masked_head_adds_nothing(config, params, packed_batch):
    """Compared with attention whose heads are zeroed where they are merged."""
    masks = {**all_heads(params), "cross": np.float32([[1, 0, 1, 1], [1, 0, 1, 1]])}

    def zero_the_second(call, arguments, keywords, context):
        if context.method_name == "merge_heads" and context.module.name == "cross_attention":
            arguments = (arguments[0].at[:, :, 1].set(0),)
        return call(*arguments, **keywords)

    with nn.intercept_methods(zero_the_second):
        model = build_model(config.model, 304)
        expected = jax.jit(lambda: model.apply({"params": params}, packed_batch))()
    found = features(config, mask_heads(params, masks), packed_batch)
    chex.assert_trees_all_close(found, expected, atol=1e-5)
    assert np.abs(found - features(config, params, packed_batch)).max() > 0.01


def test_what_is_left_is_the_masked_model(config, params, pruned, packed_batch):
    expected = features(config, mask_heads(params, MASKS), packed_batch)
    chex.assert_trees_all_close(features(*pruned, packed_batch), expected, atol=1e-5)
    assert {name: getattr(pruned[0].model, name) for name in SLOTS} == SLOTS
    shapes = jax.tree.map(jnp.shape, pruned[1])
    assert shapes["encoder"]["attention"]["query"] == (2, 16, 2, 4)
    assert shapes["decoder"]["self_attention"]["output"] == (2, 1, 4, 16)
    assert shapes["decoder"]["cross_attention"]["value"] == (2, 16, 4, 4)


def test_it_decodes_step_by_step_as_at_once(pruned, packed_batch):
    config, params = pruned
    source = [array[:2, :5] for array in packed_batch[:3]]
    ids = packed_batch.target_inputs[:2, :2]
    positions = np.broadcast_to(np.arange(2), ids.shape)

    @jax.jit
    def at_once_and_by_step(params):
        model = build_model(config.model, 304).bind({"params": params})
        memory = model.encode(*source)
        features = model.decode(ids, np.ones_like(ids), positions, memory, source[1] > 0)
        cache = model.start_cache(memory, source[1], 2, 1)
        steps = []
        for step in range(2):
            logits, cache = model.decode_step(ids[:, step : step + 1], jnp.int32(step), cache)
            steps.append(logits)
        return model.logits(features), jnp.concatenate(steps, axis=1), cache["layers"][0]

    expected, found, layer = at_once_and_by_step(params)
    chex.assert_trees_all_close(found, expected, atol=1e-4)
    assert (layer["self_key"].shape[3], layer["source_key"].shape[3]) == (1, 4)


def test_empty_slots_stay_empty(pruned, packed_batch):
    """No gradient reaches them, so training leaves them as they are."""
    config, params = pruned

    @jax.jit
    def gradient(params):
        return jax.grad(lambda params: validation_step(config, params, packed_batch).loss)(params)

    found = gradient(params)
    for tree in (found["decoder"], params["decoder"]):
        empty = [tree["self_attention"][name][0] for name in ("query", "key", "value", "output")]
        empty += [
            tree["cross_attention"]["output"][1, 2:],
            tree["cross_attention"]["key"][1, :, 2:],
        ]
        assert all((np.asarray(array) == 0).all() for array in empty)
    assert (np.asarray(found["decoder"]["self_attention"]["output"][1]) != 0).all()


def test_empty_slots_count_for_nothing(pruned):
    chex.assert_trees_all_equal(
        {kind: mask.sum(axis=1) for kind, mask in all_heads(pruned[1]).items()},
        {kind: mask.sum(axis=1) for kind, mask in MASKS.items()},
    )


def test_dry_runs_count_the_heads_left(config, params, pruned):
    whole, left = (model_flops(*each).scores for each in ((config, params), pruned))
    # Of 2 x 4 heads for each of three kinds of attention, slots for 2 x (2 + 1 + 4) are left.
    assert left / whole == pytest.approx(14 / 24)


@pytest.mark.parametrize("name", SLOTS)
@pytest.mark.parametrize("count", [0, 9])
def test_heads_left_are_some_of_the_heads(name, count):
    with pytest.raises(ft.UserError, match=f"model.{name} is {count}, but must be from 1 to .* 8"):
        TransformerConfig(**{name: count})
