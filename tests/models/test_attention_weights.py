"""The weights of every attention, read at the taps, against those that numpy computes."""

import dataclasses

import jax
import numpy as np
import pytest
from support import recurrent_reference, reference
from support.samples import RECURRENT, recurrent

from flax_transformer.models import build_model
from flax_transformer.models.attention_weights import attention_weights, look_at_attention

LAYERS, HEADS = 2, 8
ROWS, LENGTH = 8, 16


def visible(batch):
    """What each attention may see, queries of padding left out, bool (1,b,1,t,s)."""
    source, target = batch.source_segments, batch.target_segments
    masks = {
        "encoder": source[:, :, None] == source[:, None, :],
        "decoder": (target[:, :, None] == target[:, None, :]) & np.tri(LENGTH, dtype=bool),
        "cross": target[:, :, None] == source[:, None, :],
    }
    queries = {"encoder": source, "decoder": target, "cross": target}
    return {
        name: (mask & (queries[name] > 0)[:, :, None])[None, :, None]
        for name, mask in masks.items()
    }


def look(config, params, batch):
    return jax.device_get(
        jax.jit(lambda params, batch: attention_weights(config, params, batch))(params, batch)
    )


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_transformers_weights_equal_those_of_the_formulas(
    norm, small_config, random_params, packed_batch, monkeypatch
):
    """Whatever kernels the run itself has: the weights come by the formula."""
    model = dataclasses.replace(small_config.model, norm=norm, remat="dots", unroll_layers=2)
    config = dataclasses.replace(small_config, model=model)
    params = random_params(config)
    by_hand, formula = [], reference.attention

    def attend(*arguments):
        weights, heads = formula(*arguments)
        by_hand.append(weights)
        return weights, heads

    monkeypatch.setattr(reference, "attention", attend)
    reference.features(config.model, params, packed_batch)
    found = look(config, params, packed_batch)
    expected = {
        "encoder": by_hand[:LAYERS],
        "decoder": by_hand[LAYERS::2],
        "cross": by_hand[LAYERS + 1 :: 2],
    }
    assert found.keys() == expected.keys()
    for name, mask in visible(packed_batch).items():
        assert found[name].shape == (LAYERS, ROWS, HEADS, LENGTH, LENGTH)
        assert found[name].dtype == np.float32
        queries = mask.any(axis=-1, keepdims=True)
        weights, hand = (np.where(queries, x, 0) for x in (found[name], np.stack(expected[name])))
        np.testing.assert_allclose(weights, hand, rtol=1e-3, atol=1e-4, err_msg=name)
        assert not weights[np.broadcast_to(~mask, weights.shape)].any()
        np.testing.assert_allclose(found[name].sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("variant", [name for name in RECURRENT if name != "no attention"])
def test_recurrent_weights_equal_those_of_the_formulas(
    variant, small_config, random_params, packed_batch
):
    config = recurrent(small_config, variant)
    params = random_params(config)
    found = look(config, params, packed_batch)
    assert found.keys() == {"cross"}
    heads = config.model.num_heads if variant == "multi_head" else 1
    assert found["cross"].shape == (1, ROWS, heads, LENGTH, LENGTH)
    np.testing.assert_allclose(found["cross"].sum(axis=-1), 1, rtol=1e-5)
    mean = found["cross"][0].mean(axis=1)
    sources, targets = packed_batch.source_segments, packed_batch.target_segments
    for row, number in [(0, 1), (0, 2), (2, 3)]:
        source, target = sources[row] == number, targets[row] == number
        _, expected, _ = recurrent_reference.decode(
            config.model, params, packed_batch.source_ids[row, source],
            packed_batch.target_inputs[row, target],
        )  # fmt: skip
        weights = mean[row][target]
        np.testing.assert_allclose(weights[:, source], expected, rtol=1e-3, atol=1e-4)
        assert not weights[:, ~source].any()


def test_models_without_attention_have_no_weights(small_config, random_params, packed_batch):
    config = recurrent(small_config, "no attention")
    assert look(config, random_params(config), packed_batch) == {}


def test_layers_are_looked_at_one_by_one(small_config, random_params, packed_batch):
    """What is kept is what the look makes of them, with the names that it is told."""
    model = build_model(small_config.model, 304)
    params = random_params(small_config)
    names = []

    def highest(name, weights):
        names.append(name)
        return weights.max(axis=(0, 2, 3))

    found = look_at_attention(model, params, packed_batch, highest)
    assert set(names) == found.keys() == {"encoder", "decoder", "cross"}
    whole = look(small_config, params, packed_batch)
    for name, weights in whole.items():
        np.testing.assert_allclose(found[name], weights.max(axis=(1, 3, 4)), rtol=1e-6)


def test_a_tap_that_nobody_reads_keeps_nothing(small_config, random_params, packed_batch):
    for config in (small_config, recurrent(small_config, "concat")):
        model = build_model(config.model, 304)
        variables = {"params": random_params(config)}
        shapes = jax.eval_shape(
            lambda: model.apply(variables, packed_batch, mutable=["losses"])  # noqa: B023
        )
        assert "attention_weights" not in shapes[1]
        loops = str(jax.make_jaxpr(lambda: model.apply(variables, packed_batch))())  # noqa: B023
        assert "f32[16,8,1,1,16]" not in loops  # (t,b,h,w,s), stacked by a loop over positions
