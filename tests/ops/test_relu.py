"""The activation of the feed-forward sub-layer and what its gradient keeps."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.models.transformer import FeedForward
from flax_transformer.ops.layer_stack import stack_layers
from flax_transformer.ops.relu import relu


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_is_jaxs_to_the_last_bit(dtype):
    """At 0 as well, where the gradient is a choice."""
    x = jnp.array([-2, -1e-30, -0.0, 0, 1e-30, 3, jnp.inf, jnp.nan], dtype)
    gradient = jnp.arange(1, 9, dtype=dtype)
    (y, pull), (expected, pull_reference) = jax.vjp(relu, x), jax.vjp(jax.nn.relu, x)
    chex.assert_trees_all_equal(y, expected)
    chex.assert_trees_all_equal(pull(gradient), pull_reference(gradient))
    assert y.dtype == dtype and np.asarray(pull(gradient)[0][3:5]).tolist() == [0, 5]


@pytest.mark.parametrize("remat", ["nothing", "dots"])
def test_one_array_of_the_hidden_width_is_kept(small_config, remat):
    """Not the product before the bias besides, nor where it was positive."""
    model = dataclasses.replace(small_config.model, remat=remat, d_ff=80)

    class Layer(FeedForward):
        def __call__(self, x):
            return super().__call__(x), None

    stack = stack_layers(Layer, model, 2, 0)
    x = jnp.ones((3, 5, model.d_model))
    params = stack.init(jax.random.key(0), x)
    _, pull = jax.vjp(lambda x: stack.apply(params, x)[0], x)
    kept = [each for each in jax.tree.leaves(pull) if each.shape[-3:] == (3, 5, 80)]
    assert [each.shape for each in kept] == [(2, 3, 5, 80)]
    assert (kept[0] == 0).any() and (kept[0] >= 0).all(), "the result, not the product before it"
