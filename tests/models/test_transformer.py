"""The whole model: parity with numpy, what no position may see, packing, types and sizes."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import reference
from support.samples import RECURRENT, recurrent

from flax_transformer.batch import Batch
from flax_transformer.config import Config, TransformerConfig
from flax_transformer.data.packing import lay_out
from flax_transformer.models import build_model
from flax_transformer.models.transformer import DecoderLayer, Embedding, EncoderLayer
from flax_transformer.training.state import count_parameters
from flax_transformer.training.step import loss_sums

VARIANTS = {
    "post-sinusoidal": {"norm": "post", "positions": "sinusoidal"},
    "pre-learned": {"norm": "pre", "positions": "learned"},
    "marian": {
        "activation": "swish", "attention_biases": True, "output_bias": "learned",
        "own_source_table": True, "norm_epsilon": 1e-2,
    },
    "fairseq": {
        "norm": "pre", "positions": "fairseq", "activation": "gelu", "attention_biases": True,
        "own_output_table": True, "scale_embedding": False,
    },
}  # fmt: skip
"""Settings of the model; the last two are those of models that others have trained."""


def vary(config: Config, **model) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


@functools.cache
def compiled_features(config: Config):
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    return jax.jit(lambda params, batch: model.apply({"params": params}, batch))


def rows(batch: Batch, *choice) -> Batch:
    return Batch(*(array[slice(*choice)] for array in batch))


@pytest.fixture(params=VARIANTS)
def variant(request, small_config, random_params):
    """A configuration and parameters for it."""
    config = vary(small_config, **VARIANTS[request.param])
    return config, random_params(config)


@pytest.mark.parametrize("order", ["post", "pre"])
def test_layers_equal_the_formulas(order, small_config, random_params):
    config = vary(small_config, norm=order).model
    random = np.random.default_rng(0)
    x, memory = random.normal(size=(2, 5, 16)), random.normal(size=(2, 7, 16))
    target, source = (
        np.array([[1] * 5, [1, 1, 2, 2, 2]]),
        np.array([[1] * 4 + [0] * 3, [1, 2] * 3 + [1]]),
    )
    same = target[:, :, None] == target[:, None, :]
    masks = same & np.tri(5, dtype=bool), target[:, :, None] == source[:, None, :]
    cases = [
        (EncoderLayer, reference.encoder_layer, "encoder", (x,), (target,), (same,)),
        (DecoderLayer, reference.decoder_layer, "decoder", (x, memory), (target, source), masks),
    ]
    params = random_params(vary(small_config, norm=order))
    for layer, formula, name, inputs, segments, seen in cases:
        one = jax.tree.map(lambda leaf: leaf[1], params[name])
        float32 = [np.asarray(i, np.float32) for i in inputs]
        result, _ = jax.jit(layer(config).apply)({"params": one}, *float32, *segments)
        expected = formula(config, one, *inputs, *seen)
        chex.assert_trees_all_close(result, expected, rtol=1e-4, atol=1e-4)


def test_equals_the_formulas(variant, packed_batch):
    config, params = variant
    real = packed_batch.target_segments > 0
    features = compiled_features(config)(params, packed_batch)
    chex.assert_shape(features, (8, 16, 17 if config.model.output_bias == "learned" else 16))
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    logits = model.apply({"params": params}, features, method="logits")
    expected = reference.logits(config.model, params, packed_batch)
    chex.assert_trees_all_close(logits[real], expected[real], rtol=1e-3, atol=1e-3)


def influence(config, params, batch):
    """How much the features at t depend on the embeddings at t' and at s, (t,t') and (t,s)."""
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    d = config.model.d_model

    def features(source, target):
        embedded = iter([source[None], target[None]])

        def replace_embedding(call, arguments, keywords, context):
            if isinstance(context.module, Embedding) and context.method_name == "__call__":
                return next(embedded)
            return call(*arguments, **keywords)

        with nn.intercept_methods(replace_embedding):
            return model.apply({"params": params}, batch)[0]

    points = np.random.default_rng(0).normal(size=(2, 16, d)).astype(np.float32)
    jacobians = jax.jit(jax.jacrev(features, argnums=(0, 1)))(*points)
    of_source, of_target = (np.abs(jacobian).max(axis=(1, 3)) for jacobian in jacobians)
    return of_target, of_source


def test_gradients_reach_exactly_what_a_position_may_see(small_config, random_params, packed_batch):
    of_target, of_source = influence(
        small_config, random_params(small_config), rows(packed_batch, 1)
    )
    source, target = packed_batch.source_segments[0], packed_batch.target_segments[0]
    real = target > 0
    assert set(target) == set(source) == {0, 1, 2}
    earlier = (target[:, None] == target) & np.tri(16, dtype=bool)
    np.testing.assert_array_equal(of_target[real] != 0, earlier[real])
    np.testing.assert_array_equal(of_source[real] != 0, (target[:, None] == source)[real])


@pytest.fixture(params=[*VARIANTS, "general", "concat"])
def family(request, small_config, random_params):
    """As `variant`, recurrent models among them."""
    if request.param in RECURRENT:
        config = recurrent(small_config, request.param)
    else:
        config = vary(small_config, **VARIANTS[request.param])
    return config, random_params(config)


def test_later_inputs_change_nothing(family, packed_batch):
    config, params = family
    features = compiled_features(config)
    before = features(params, packed_batch)
    ids = packed_batch.target_inputs.copy()
    changed = 3  # of the first pair in every row, or padding
    ids[:, changed] = ids[:, changed] % 200 + 50
    after = features(params, packed_batch._replace(target_inputs=ids))
    same = (np.asarray(before) == np.asarray(after)).all(axis=-1)
    assert same[:, :changed].all()
    assert not same[:, changed].any()
    others = packed_batch.target_segments != packed_batch.target_segments[:, [changed]]
    assert others.any()
    assert same[others].all()


def test_packed_pairs_equal_pairs_alone(family, packed_batch, small_pairs):
    config, params = family
    features = compiled_features(config)
    packed = np.asarray(features(params, packed_batch))
    segments = packed_batch.target_segments
    places = [
        (row, segments[row] == n) for row in range(8) for n in range(1, segments[row].max() + 1)
    ]
    assert len(places) == len(small_pairs)
    for first in (0, 8):
        alone = lay_out(small_pairs, [np.array([first + i]) for i in range(8)], 16, 16)
        result = np.asarray(features(params, alone))
        for i, (row, place) in enumerate(places[first : first + 8]):
            chex.assert_trees_all_close(
                result[i, : place.sum()], packed[row, place], rtol=1e-5, atol=1e-5
            )


def test_loss_of_packed_pairs_is_the_sum_of_their_losses(
    small_config, random_params, packed_batch, small_pairs
):
    params = random_params(small_config)
    loss = jax.jit(lambda params, batch: loss_sums(small_config, params, batch, None))
    packed = loss(params, packed_batch)
    singles = [lay_out(small_pairs, [np.arange(i, i + 1)] * 8, 16, 16) for i in range(16)]
    sums = jax.tree.map(lambda *parts: sum(parts) / 8, *[loss(params, one) for one in singles])
    chex.assert_trees_all_close(packed, sums, rtol=1e-5)
    assert packed.tokens == len(small_pairs.target.values)


def test_bfloat16_is_close_to_float32(small_config, random_params, packed_batch):
    params = random_params(small_config)
    exact = np.asarray(compiled_features(small_config)(params, packed_batch))
    narrow = vary(small_config, compute_dtype="bfloat16")
    rounded = compiled_features(narrow)(params, packed_batch)
    chex.assert_type(rounded, jnp.bfloat16)
    real = packed_batch.target_segments > 0
    error = np.abs(np.asarray(rounded, np.float32) - exact)[real]
    assert 1e-4 < error.mean() < 0.008 * np.abs(exact[real]).mean()


def test_wrong_shapes_are_refused(small_config, random_params, packed_batch):
    with pytest.raises(AssertionError):
        bad = packed_batch._replace(target_positions=packed_batch.target_positions[:, :-1])
        compiled_features(small_config)(random_params(small_config), bad)


BASE = TransformerConfig()
BIG = TransformerConfig(d_model=1024, num_heads=16, d_ff=4096, dropout=0.3)
TINY = TransformerConfig(
    num_encoder_layers=4, num_decoder_layers=4, d_model=128, num_heads=4, d_ff=256
)


@pytest.mark.parametrize(
    ("config", "vocabulary_size", "expected"),
    [(BASE, 37_000, 63_045_632), (BIG, 37_000, 214_171_648), (TINY, 10_000, 2_598_912)],
    ids=["base", "big", "multi30k tiny"],
)
def test_number_of_parameters(config, vocabulary_size, expected):
    """Derived by hand, for the base model of Table 3:

    embedding, also the output     v d = 37,000 x 512          = 18,944,000
    one attention                  4 d^2                       =  1,048,576
    one feed-forward               2 d f + f + d               =  2,099,712
    one normalisation              2 d                         =      1,024
    encoder layer                  attention + ff + 2 norms    =  3,150,336
    decoder layer                  2 attentions + ff + 3 norms =  4,199,936
    all                            18,944,000 + 6 x 3,150,336 + 6 x 4,199,936 = 63,045,632

    The big model: 37,888,000 + 6 x 12,592,128 + 6 x 16,788,480 = 214,171,648.
    The tiny one: 1,280,000 + 4 x 131,968 + 4 x 197,760 = 2,598,912.
    """
    model = build_model(config, vocabulary_size)
    batch = Batch(*(jax.ShapeDtypeStruct((1, 1), "int32") for _ in Batch._fields))
    params = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
    assert count_parameters(nn.unbox(params)) == expected
