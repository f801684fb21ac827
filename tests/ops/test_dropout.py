"""The statistics of dropout's mask, and what it depends on."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_transformer.config import TransformerConfig
from flax_transformer.models.dropout import Dropout
from flax_transformer.ops.dropout import dropout, dropout_reference, keep_mask
from flax_transformer.ops.layer_stack import stack_layers

SHAPE = (64, 32, 48)


def module(rate):
    return Dropout(TransformerConfig(dropout=rate, compute_dtype="float32"))


def mask(seed, keep_rate, shape=SHAPE):
    return np.asarray(keep_mask(jax.random.key(seed), shape, keep_rate))


def drop(rate, x, seed):
    rngs = None if seed is None else {"dropout": jax.random.key(seed)}
    return module(rate).apply({}, x, rngs=rngs)


@pytest.mark.parametrize("keep_rate", [0.5, 0.7, 0.9])
def test_rate(keep_rate):
    """Within five standard deviations, over the whole array and for every index of every axis."""
    kept = mask(0, keep_rate)
    for axes in [(0, 1, 2), (1, 2), (0, 2), (0, 1)]:
        shares = kept.mean(axis=axes)
        number = kept.size // shares.size
        assert np.abs(shares - keep_rate).max() < 5 * (keep_rate * (1 - keep_rate) / number) ** 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_neighbours_are_independent(seed):
    """The correlation at any distance is what chance makes it: 1 / sqrt(n), five times at most."""
    signs = np.where(mask(seed, 0.5), 1.0, -1.0)
    for axis in range(3):
        for distance in (1, 2, 3, 4, 8, 16):
            first = np.take(signs, np.arange(SHAPE[axis] - distance), axis)
            second = np.take(signs, np.arange(distance, SHAPE[axis]), axis)
            product = first * second
            assert abs(product.mean()) < 5 / product.size**0.5, (axis, distance)


def test_keys_are_independent():
    signs = [np.where(mask(seed, 0.5), 1.0, -1.0).ravel() for seed in range(6)]
    folded = [jax.random.fold_in(jax.random.key(0), step) for step in range(6)]
    signs += [np.where(keep_mask(key, SHAPE, 0.5), 1.0, -1.0).ravel() for key in folded]
    correlations = np.corrcoef(signs) - np.eye(len(signs))
    assert np.abs(correlations).max() < 5 / signs[0].size ** 0.5


def test_keeps_the_mean():
    """What stays is scaled by 1 / (1 - rate), what goes is exactly 0."""
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    result = np.asarray(drop(0.3, x, 0))
    kept = result != 0
    assert abs(kept.mean() - 0.7) < 0.01
    chex.assert_trees_all_close(result[kept], x[kept] / 0.7, rtol=1e-6)
    chex.assert_type(drop(0.3, jnp.asarray(x, jnp.bfloat16), 0), jnp.bfloat16)


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_scale_is_rounded_with_the_product(rate):
    """In bfloat16 1 / 0.9 is 0.16% less than it is, which would shrink all activations alike."""
    x = np.random.default_rng(0).uniform(1, 2, SHAPE).astype(np.float32)
    x = jnp.asarray(x, jnp.bfloat16)
    result = drop(rate, x, 0)
    exact = np.asarray(x, np.float64) / (1 - rate)
    kept = np.asarray(result != 0)
    found = np.asarray(result, np.float64)
    assert abs((found[kept] / exact[kept]).mean() - 1) < 1e-4
    nearest = np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float64)
    np.testing.assert_array_equal(found[kept], nearest[kept])


def test_nothing_without_a_key_or_a_rate():
    x = jnp.ones((4, 5))
    chex.assert_trees_all_equal(drop(0.5, x, None), x)
    chex.assert_trees_all_equal(drop(0.0, x, 0), x)
    assert (drop(0.5, x, 0) != x).any()


@pytest.mark.parametrize("axes", [("x", None, None), (None, None, "x")], ids=["rows", "width"])
def test_same_mask_on_one_and_on_eight_devices(axes):
    """And no device makes more of it than its own part."""
    mesh = Mesh(np.asarray(jax.devices()), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    x = jnp.ones(SHAPE)
    key = jax.random.key(0)
    apply = jax.jit(lambda x, key: module(0.5).apply({}, x, rngs={"dropout": key}))
    split = apply(
        jax.device_put(x, sharding), jax.device_put(key, NamedSharding(mesh, PartitionSpec()))
    )
    assert len(split.sharding.device_set) == 8
    assert split.addressable_shards[0].data.size == x.size // 8
    chex.assert_trees_all_equal(np.asarray(split), np.asarray(apply(x, key)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equals_its_reference(dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), dtype)
    result, expected = (f(x, jax.random.key(5), 0.3) for f in (dropout, dropout_reference))
    np.testing.assert_array_equal(result == 0, expected == 0)
    assert result.dtype == expected.dtype == x.dtype
    widened = [np.asarray(each, np.float32) for each in (result, expected)]
    np.testing.assert_allclose(*widened, rtol=1e-6 if dtype == "float32" else 0.01)


class TwoDropouts(nn.Module):
    """A layer that returns the masks of its two dropouts."""

    config: object

    @nn.compact
    def __call__(self, x, _):
        ones = jnp.ones(SHAPE)
        return x, (module(0.5)(ones), module(0.5)(ones))


def test_layers_of_a_stack_have_their_own_masks(small_config):
    stack = stack_layers(TwoDropouts, small_config.model, 3, 1)
    _, pair = stack.apply({}, 0.0, None, rngs={"dropout": jax.random.key(0)})
    masks = np.concatenate(pair)
    assert masks.shape == (6, *SHAPE)
    signs = masks.reshape(6, -1) - 1  # 0 and 2 to -1 and 1
    correlations = np.corrcoef(signs) - np.eye(6)
    assert np.abs(correlations).max() < 5 / signs[0].size ** 0.5
