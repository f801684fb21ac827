"""The recurrent models against numpy, and how their loops are differentiated."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from support import recurrent_reference as reference
from support.jaxprs import equations
from support.samples import RECURRENT, recurrent

from flax_transformer.config import RecurrentConfig
from flax_transformer.errors import UserError
from flax_transformer.models import build_model
from flax_transformer.models.recurrent.attention import PRODUCTS, attend
from flax_transformer.models.recurrent.cells import CELLS
from flax_transformer.models.recurrent.decoder import Decoder
from flax_transformer.ops.einsum import einsum
from flax_transformer.ops.kernels import FAST, REFERENCE
from flax_transformer.ops.lstm import lstm, lstm_reference
from flax_transformer.ops.recurrence import (
    Loop,
    multiplier,
    scan_over_time,
    scan_over_time_reference,
)
from flax_transformer.training.step import loss_sums

float32_einsum = functools.partial(einsum, dtype=jnp.float32)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("ops", [FAST, REFERENCE], ids=["fast", "reference"])
@pytest.mark.parametrize("kind", CELLS)
def test_cells_equal_the_formulas(kind, ops):
    cell = CELLS[kind]
    step = functools.partial(cell.step, ops)
    from_input, from_state = draw(3, cell.num_gates, 5), draw(3, cell.num_gates, 5, seed=1)
    state = tuple(draw(3, 5, seed=2 + i) for i in range(cell.num_arrays))
    result = jax.jit(step)(from_input, from_state, state)
    for i in range(3):
        expected = reference.cell(kind, from_input[i], from_state[i], [part[i] for part in state])
        chex.assert_trees_all_close([part[i] for part in result], list(expected), atol=1e-6)
    check_grads(step, (from_input, from_state, state), order=1, modes=["rev"])


def test_gradients_of_lstms_equal_those_of_the_reference():
    sums, state = draw(3, 4, 5), (draw(3, 5, seed=1), draw(3, 5, seed=2))
    found = []
    for function in (lstm, lstm_reference):
        result, pull = jax.vjp(function, sums, state)
        found.append((result, pull((draw(3, 5, seed=3), draw(3, 5, seed=4)))))
    chex.assert_trees_all_close(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", RECURRENT)
def test_packed_rows_equal_the_formulas(
    variant, small_config, random_params, packed_batch, small_pairs
):
    """Every pair as if it were alone in the world, wherever it stands in a row; so nothing that
    stands beside it, padding included, reaches it from either side."""
    config = recurrent(small_config, variant)
    params = random_params(config)
    model = build_model(config.model, 304)

    @jax.jit
    def run(params, batch):
        return model.apply({"params": params}, batch, mutable=["losses"])

    features, added = run(params, packed_batch)
    chex.assert_shape(features, (8, 16, 16))
    losses, pair = 0.0, 0
    for row, segments in enumerate(packed_batch.target_segments):
        for number in range(1, segments.max() + 1):
            source = packed_batch.source_ids[row, packed_batch.source_segments[row] == number]
            inputs = packed_batch.target_inputs[row, segments == number]
            expected, _, loss = reference.decode(config.model, params, source, inputs)
            found = features[row, segments == number]
            chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-4)
            losses, pair = losses + loss, pair + 1
    assert pair == len(small_pairs)
    if config.model.coverage:
        np.testing.assert_allclose(jax.tree.leaves(added), [losses], rtol=1e-4)
        weighted = recurrent(small_config, variant, coverage_loss=3.0)
        found = [float(loss_sums(c, params, packed_batch, None).loss) for c in (config, weighted)]
        np.testing.assert_allclose(found[1] - found[0], 2 * losses, rtol=1e-3)
    else:
        assert not jax.tree.leaves(added)


@pytest.mark.parametrize("kind", ["dot", "general", "concat", "multi_head"])
def test_attention_stays_inside_its_mask(kind):
    b, w, s, d, h, k = 2, 3, 6, 4, 2, 2
    config = RecurrentConfig(attention=kind, num_heads=h, compute_dtype="float32")
    shapes = {
        "keys": (b, s, h, k) if kind == "multi_head" else (b, s, d),
        "values": (b, s, h, k) if kind == "multi_head" else (b, s, d),
        "query": (d, h, k) if kind == "multi_head" else (d, d),
        "output": (h, k, d),
        "vector": (d,),
    }
    arrays = {name: 3 * draw(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    mask = np.random.default_rng(1).random((b, w, s)) < 0.5
    mask[:, :, 2] = True

    @jax.jit
    def run(arrays, state):
        multiply = multiplier(PRODUCTS[kind], arrays, float32_einsum)
        return attend(config, multiply, arrays, state, mask)

    context, weights = run(arrays, draw(b, w, d))
    heads = h if kind == "multi_head" else 1
    chex.assert_shape(weights, (b, heads, w, s))
    for head in np.moveaxis(np.asarray(weights), 1, 0):
        assert (head[~mask] == 0).all()
        assert (head[mask] > 0).all()
    chex.assert_trees_all_close(weights.sum(axis=-1), np.ones((b, heads, w)), atol=1e-6)
    hidden = ~mask.any(axis=1)  # from every position
    assert hidden.any()
    for name in ("keys", "values"):
        changed = np.where(hidden.reshape(b, s, *[1] * (arrays[name].ndim - 2)), 99, arrays[name])
        again = run(arrays | {name: changed}, draw(b, w, d))
        chex.assert_trees_all_equal(again, (context, weights))


def test_attention_and_coverage_of_decoding_equal_the_formulas(small_config, random_params):
    """And the coverage in the cache is exactly the sum of the attention so far."""
    config = recurrent(small_config, "concat")
    params = random_params(config)
    model = build_model(config.model, 304)
    apply = functools.partial(model.apply, {"params": jax.device_put(params)})
    random = np.random.default_rng(1)
    source, target = random.integers(4, 304, (2, 7)), random.integers(4, 304, (2, 1, 4))
    lengths = [7, 4]
    segments = (np.arange(7) < np.array(lengths)[:, None]).astype(np.int32)
    memory = jax.jit(functools.partial(apply, method="encode"))(source, segments, segments)
    cache = apply(memory, segments, 4, 1, method="start_cache")
    step = jax.jit(functools.partial(apply, method="decode_step_with_attention"))
    total = jnp.zeros((2, 1, 7))
    for t in range(4):
        np.testing.assert_array_equal(cache["carry"].coverage[0], total)
        _, cache, attention = step(target[:, :, t], jnp.asarray(t), cache)
        for row, length in enumerate(lengths):
            _, expected, _ = reference.decode(
                config.model, params, source[row, :length], target[row, 0]
            )
            chex.assert_trees_all_close(attention[row, 0, :length], expected[t], atol=1e-4)
            assert (np.asarray(attention[row, 0, length:]) == 0).all()
        total += attention


def test_without_attention_there_is_none_to_return(small_config, random_params):
    config = recurrent(small_config, "no attention", num_encoder_layers=1, num_decoder_layers=1)
    model = build_model(config.model, 304).bind({"params": random_params(config)})
    ids = jnp.ones((1, 1), jnp.int32)
    cache = model.start_cache(model.encode(ids, ids, ids), ids, 2, 1)
    with pytest.raises(UserError, match=r"model\.attention is none"):
        model.decode_step_with_attention(ids, jnp.asarray(0), cache)


def turn(multiply, constants, carry, x):
    """Two products of two weights, one of them with a batch axis, and a nonlinearity."""
    hidden = jnp.tanh(multiply("kernel", carry) + x + constants[None, None])
    y = multiply("memory", hidden)
    return hidden, y


@pytest.mark.parametrize("function", [scan_over_time, scan_over_time_reference])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_a_loop_equal_those_of_scan(reverse, function):
    products = {"kernel": "bwd,du->bwu", "memory": "bwd,bsd->bws"}
    loop = Loop(tuple(products.items()), jnp.dtype("float32"), unroll=2, reverse=reverse)
    weights = {"kernel": draw(4, 4), "memory": draw(2, 5, 4, seed=1)}
    addends = {"kernel": draw(7, 2, 1, 4, seed=5)}
    others = (draw(4, seed=2), draw(2, 1, 4, seed=3), draw(7, 2, 1, 4, seed=4))
    arguments = (weights, addends, *others)

    def ours(weights, addends, constants, start, xs):
        return function(turn, loop, weights, addends, constants, start, xs)

    def plain(weights, addends, constants, start, xs):
        multiply = multiplier(products, weights, float32_einsum)
        step = functools.partial(turn, multiply, constants)
        # `turn` adds x to the product of "kernel".
        return jax.lax.scan(step, start, xs + addends["kernel"], reverse=reverse)

    def loss(function, *arguments):
        carry, ys = function(*arguments)
        return (jnp.sin(carry) * 3).sum() + (ys**2 * jnp.arange(5.0)[None, None, None]).sum()

    @jax.jit
    def both(*arguments):
        return [
            jax.value_and_grad(functools.partial(loss, function), argnums=(0, 1, 2, 3, 4))(
                *arguments
            )
            for function in (ours, plain)
        ]

    result, expected = both(*arguments)
    chex.assert_trees_all_close(result, expected, rtol=1e-4, atol=1e-4)


def test_no_gradient_of_a_weight_is_carried_through_a_loop(
    small_config, random_params, packed_batch
):
    """They come of one product each after it."""
    config = recurrent(small_config, "general", input_feeding=True, d_model=24)

    def loss(params):
        return loss_sums(config, params, packed_batch, None).loss

    trace = jax.make_jaxpr(jax.grad(loss))(jax.device_put(random_params(config)))
    scans = [each for each in equations(trace) if each.primitive.name == "scan"]
    kernels = {(12, 3, 12), (24, 3, 24), (24, 3, 12), (2, 24, 24)}
    assert len(scans) >= 6
    for scan in scans:
        # What a turn hands to the next, and what it adds to a stack.
        assert not kernels & {each.shape for each in scan.params["jaxpr"].out_avals}


@pytest.mark.parametrize("variant", ["no attention", "concat"])
def test_bfloat16_is_close_to_float32(variant, small_config, random_params, packed_batch):
    config = recurrent(small_config, variant, num_decoder_layers=1)
    params = random_params(config)

    def gradient(dtype):
        model = dataclasses.replace(config.model, compute_dtype=dtype)
        rounded = dataclasses.replace(config, model=model)

        def loss(params):
            return loss_sums(rounded, params, packed_batch, None).loss

        return jax.jit(jax.value_and_grad(loss))(params)

    (exact, exact_gradient), (loss, of_loss) = gradient("float32"), gradient("bfloat16")
    np.testing.assert_allclose(loss, exact, rtol=0.02)
    for ours, theirs in zip(jax.tree.leaves(of_loss), jax.tree.leaves(exact_gradient), strict=True):
        error = np.linalg.norm(ours - theirs)
        assert 0 < error < 0.15 * np.linalg.norm(theirs)


def test_attention_without_feeding_is_outside_of_all_loops(
    small_config, random_params, packed_batch
):
    def score_products_in_loops(config):
        model = build_model(config.model, 304)
        apply = functools.partial(model.apply, {"params": jax.device_put(random_params(config))})
        trace = jax.make_jaxpr(apply)(packed_batch)
        loops = [each for each in equations(trace) if each.primitive.name == "scan"]
        inside = [each for loop in loops for each in equations(loop.params["jaxpr"])]
        return sum(
            each.primitive.name == "dot_general" and each.params["dimension_numbers"][1][0] != ()
            for each in inside
        )

    assert score_products_in_loops(recurrent(small_config, "general")) == 0
    assert score_products_in_loops(recurrent(small_config, "general", input_feeding=True)) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "none"}, "no-input-feeding"),
        ({"attention": "dot", "coverage": True}, "coverage needs concat"),
        ({"attention": "multi_head", "num_heads": 7}, r"num_heads \(7\) must divide"),
        ({"d_model": 15}, r"d_model \(15\) must be even"),
        ({"coverage_loss": -1.0}, "coverage_loss"),
        ({"unroll_steps": 0}, "unroll_steps is 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        RecurrentConfig(**settings)


def test_dropout_is_on_and_between_layers(small_config, random_params, packed_batch):
    """A model of two decoder layers draws one mask more, in either kind of loop."""
    for variant in ("no attention", "concat"):
        config = recurrent(small_config, variant, dropout=0.5)
        decoder = Decoder(config.model)
        params = random_params(config)["decoder"]
        x = np.ones((16, 8, 16), np.float32)
        memory = build_model(config.model, 304).apply(
            {"params": random_params(config)}, *packed_batch[:3], method="encode"
        )

        def run(key, decoder=decoder, params=params, x=x, memory=memory):
            return decoder.apply(
                {"params": params}, x, packed_batch.target_segments, memory,
                packed_batch.source_segments, rngs={} if key is None else {"dropout": key},
            )  # fmt: skip

        plain, dropped = run(None), np.asarray(run(jax.random.key(0)))
        assert 0.4 < (dropped == 0).mean() < 0.6
        # Between the layers as well: what is left is not only scaled.
        assert not np.allclose(dropped[dropped != 0], 2 * np.asarray(plain)[dropped != 0])
