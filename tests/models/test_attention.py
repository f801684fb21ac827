"""Attention against numpy, and what its mask promises."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import reference

from flax_transformer.config import TransformerConfig
from flax_transformer.models import transformer
from flax_transformer.models.transformer import MultiHeadAttention
from flax_transformer.ops.einsum import einsum

scaled_dot_product_attention = functools.partial(
    transformer.scaled_dot_product_attention,
    einsum=functools.partial(einsum, dtype=jnp.float32),
    tap=lambda weights: weights,
)
attend = jax.jit(scaled_dot_product_attention)


def attention_of(d_model, num_heads):
    config = TransformerConfig(d_model=d_model, num_heads=num_heads, compute_dtype="float32")
    return MultiHeadAttention(config)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def draw_mask(b, t, s, seed=0):
    """Random, with at least one visible position for every query."""
    mask = np.random.default_rng(seed).random((b, t, s)) < 0.5
    mask[:, :, 0] |= ~mask.any(axis=-1)
    return mask


@pytest.mark.parametrize("function", [attend, scaled_dot_product_attention], ids=["jit", "plain"])
def test_equals_the_formula(function):
    query, key, value = draw(2, 3, 4, 5), draw(2, 6, 4, 5, seed=1), draw(2, 6, 4, 5, seed=2)
    mask = draw_mask(2, 3, 6)
    _, expected = reference.attention(query, key, value, mask)
    chex.assert_trees_all_close(function(query, key, value, mask), expected, atol=1e-5)


def test_weights_sum_to_one_over_what_is_visible():
    b, t, s, h = 2, 3, 6, 4
    mask = draw_mask(b, t, s)
    # With the unit vectors as values, the result is the weights.
    units = np.broadcast_to(np.eye(s, dtype=np.float32)[None, :, None], (b, s, h, s))
    weights = attend(10 * draw(b, t, h, s), draw(b, s, h, s, seed=1), units, mask)
    hidden = np.broadcast_to(~mask[:, :, None, :], weights.shape)
    assert (np.asarray(weights)[hidden] == 0).all()
    assert (np.asarray(weights)[~hidden] > 0).all()
    chex.assert_trees_all_close(weights.sum(axis=-1), np.ones((b, t, h)), atol=1e-5)


def test_query_that_sees_nothing_stays_finite():
    query, key, value = draw(1, 2, 4, 5), draw(1, 6, 4, 5, seed=1), draw(1, 6, 4, 5, seed=2)
    mask = np.array([[[False] * 6, [True] * 6]])

    def total(query, key, value):
        result = scaled_dot_product_attention(query, key, value, mask)
        return result.sum(), result

    gradients, result = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(query, key, value)
    chex.assert_tree_all_finite((gradients, result))
    chex.assert_trees_all_close(result[0, 0], value[0].mean(axis=0), atol=1e-5)


def test_wrong_shapes_are_refused():
    query, key = draw(2, 3, 4, 5), draw(2, 6, 4, 5)
    with pytest.raises(AssertionError):
        scaled_dot_product_attention(query, key, key, draw_mask(2, 6, 3))
    with pytest.raises(AssertionError):
        scaled_dot_product_attention(query, key, key[:, :-1], draw_mask(2, 3, 6))


def test_multi_head_attention_equals_the_formula():
    x, memory = draw(2, 3, 8), draw(2, 6, 8, seed=1)
    segments = np.array([[1, 1, 2], [1, 2, 2]]), np.array([[1, 1, 2, 2, 2, 2], [2, 2, 1, 0, 0, 0]])
    mask = segments[0][:, :, None] == segments[1][:, None, :]
    names = ("query", "key", "value")
    params = {name: draw(8, 4, 2, seed=i) for i, name in enumerate(names)}
    params["output"] = draw(4, 2, 8, seed=3)
    module = attention_of(d_model=8, num_heads=4)
    result = jax.jit(module.apply)({"params": params}, x, memory, *segments)
    expected = reference.multi_head_attention(params, x, memory, mask)
    chex.assert_trees_all_close(result, expected, rtol=1e-4, atol=1e-4)


def test_kernels_start_as_xavier_matrices():
    """A uniform distribution of variance 2 / (fan in + fan out) for a matrix (h k) x d, and for
    the d x 3 (h k) that queries, keys and values come from."""
    d, h = 256, 8
    module = attention_of(d_model=d, num_heads=h)
    x, segments = jnp.zeros((1, 1, d)), jnp.ones((1, 1), jnp.int32)
    params = jax.jit(module.init)(jax.random.key(0), x, x, segments, segments)["params"]
    for name, kernel in params.items():
        kernel = np.asarray(kernel.value)
        assert kernel.shape == ((h, d // h, d) if name == "output" else (d, h, d // h))
        variance = 2 / (d + d) if name == "output" else 2 / (d + 3 * d)
        np.testing.assert_allclose(kernel.std(), variance**0.5, rtol=0.02, err_msg=name)
        assert 0.99 < np.abs(kernel).max() / (3 * variance) ** 0.5 <= 1
