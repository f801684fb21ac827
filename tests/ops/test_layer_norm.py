import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from flax_transformer.config import MeshConfig
from flax_transformer.ops import layer_norm_gpu
from flax_transformer.ops.add_bias import add_bias, add_bias_reference, sum_over_positions
from flax_transformer.ops.layer_norm import layer_norm, layer_norm_reference
from flax_transformer.parallel import collectives
from flax_transformer.parallel.sharding import batch_sharding, build_mesh, on_mesh, replicated


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


formula = functools.partial(layer_norm_reference, epsilon=1e-6, dtype=jnp.dtype("float32"))


def test_the_reference_is_the_formula():
    x, scale, bias = np.asarray(draw(4, 3, 8), np.float64), np.arange(1, 9), np.arange(8)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    found = formula(jnp.asarray(x, jnp.float32), jnp.asarray(scale), jnp.asarray(bias))
    np.testing.assert_allclose(found, expected * scale + bias, rtol=1e-5, atol=1e-5)


def test_result_and_gradients_equal_those_of_the_formula():
    x, scale, bias, weights = (
        draw(4, 32, 8),
        draw(8, seed=1),
        draw(8, seed=2),
        draw(4, 32, 8, seed=3),
    )

    def both(function):
        def loss(*arrays):
            result = function(*arrays)
            return (result * weights).sum(), result

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(x, scale, bias)

    result = both(lambda *arrays: layer_norm(*arrays, 1e-6, jnp.dtype("float32")))
    chex.assert_trees_all_close(result, both(formula), rtol=1e-4, atol=1e-4)


def test_bfloat16_comes_in_and_goes_out_and_float32_is_between():
    x = (100 + draw(2, 3, 8)).astype(jnp.bfloat16)  # of which bfloat16 would lose the variance
    ones, zeros = jnp.ones(8), jnp.zeros(8)
    y, pull = jax.vjp(lambda x: layer_norm(x, ones, zeros, 1e-6, jnp.dtype("bfloat16")), x)
    chex.assert_type([y, *pull(y)], jnp.bfloat16)
    expected = formula(x.astype(jnp.float32), ones, zeros)
    chex.assert_trees_all_close(y.astype(jnp.float32), expected, atol=0.02)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("shape", [(128, 32, 3), (5, 64, 3), (7, 3, 3)])  # three stages, one, none
def test_sums_in_stages_are_sums(monkeypatch, platform, shape):
    monkeypatch.setattr(collectives, "platform", lambda: platform)
    x = draw(*shape)
    # A function of its own for each platform, or JAX would find the other one's program.
    sums, text = sum_over_positions(x), str(jax.make_jaxpr(lambda x: sum_over_positions(x))(x))
    chex.assert_trees_all_close(
        sums, np.asarray(x, np.float64).sum(axis=(0, 1)), rtol=1e-4, atol=1e-4
    )
    staged = platform == "cpu" and shape != (7, 3, 3)
    assert (text.count("reduce_sum") > 1) == staged
    bias = draw(3)
    result, pull = jax.vjp(add_bias, x, bias)
    expected, pull_reference = jax.vjp(add_bias_reference, x, bias)
    chex.assert_trees_all_equal(result, expected)
    chex.assert_trees_all_close(pull(x), pull_reference(x), rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(pull(x)[1], sums)


@pytest.mark.parametrize(
    ("d", "mesh"),
    [
        (128, MeshConfig(data=1)),
        (1024, MeshConfig(data=1)),
        (4096, MeshConfig(data=1)),
        (128, MeshConfig(data=2, model=4)),
    ],
)
def test_the_kernel_for_gpus_gives_the_same_gradients(monkeypatch, d, mesh):
    monkeypatch.setattr(pl, "pallas_call", functools.partial(pl.pallas_call, interpret=True))
    x, weights = draw(2, 64, d), draw(2, 64, d, seed=3)
    scale, bias = draw(d, seed=1), draw(d, seed=2)
    mesh = build_mesh(mesh, jax.devices()[: mesh.data * mesh.model])
    assert layer_norm_gpu.fits(x)
    x = jax.device_put(x, batch_sharding(mesh))
    scale, bias = jax.device_put((scale, bias), replicated(mesh))

    def gradients(platform: str):
        monkeypatch.setattr(collectives, "platform", lambda: platform)

        def loss(x, scale, bias):
            return (layer_norm(x, scale, bias, 1e-6, jnp.dtype("float32")) * weights).sum()

        traced = jax.jit(on_mesh(mesh, jax.grad(loss, argnums=(0, 1, 2)))).trace(x, scale, bias)
        assert ("pallas_call" in str(traced.jaxpr)) == (platform == "gpu")
        return jax.device_get(traced.lower().compile()(x, scale, bias))

    chex.assert_trees_all_close(gradients("gpu"), gradients("cpu"), rtol=1e-4, atol=1e-4)


def test_widths_that_the_kernel_does_not_take():
    assert layer_norm_gpu.fits(jax.ShapeDtypeStruct((2, 32, 512), jnp.bfloat16))
    assert not layer_norm_gpu.fits(jax.ShapeDtypeStruct((2, 32, 768), jnp.bfloat16))
    assert not layer_norm_gpu.fits(jax.ShapeDtypeStruct((2, 31, 512), jnp.bfloat16))
