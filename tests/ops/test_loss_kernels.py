"""The kernels of the loss, interpreted on the CPU, against the chunks that they replace."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from flax_transformer.config import MeshConfig
from flax_transformer.ops import cross_entropy_gpu, cross_entropy_tpu
from flax_transformer.ops.cross_entropy import cross_entropy
from flax_transformer.parallel import collectives
from flax_transformer.parallel.sharding import build_mesh, on_mesh, replicated

KERNELS = {"tpu": cross_entropy_tpu, "gpu": cross_entropy_gpu}
B, T, D = 3, 128, 128


@pytest.fixture(params=KERNELS)
def kernels(request, monkeypatch):
    """Who asks for the platform hears that of these kernels, which are interpreted."""
    monkeypatch.setattr(pl, "pallas_call", functools.partial(pl.pallas_call, interpret=True))
    monkeypatch.setattr(collectives, "platform", lambda: request.param)
    return KERNELS[request.param]


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.bfloat16)


def evaluate(v: int, mesh=None):
    """Sums and gradients of a batch whose rows are full, partly full and empty."""
    features, table = draw(B, T, D), 0.2 * draw(v, D, seed=1)
    targets = jnp.asarray(np.random.default_rng(2).integers(0, v, (B, T)), jnp.int32)
    weights = jnp.asarray(np.arange(T) < np.array([[T], [50], [0]]), jnp.float32)

    def loss(*arrays):
        sums = cross_entropy(*arrays, 0.1, jnp.bfloat16)
        return sums.loss, sums

    differentiate = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    arrays = features, table, targets, weights
    if mesh is not None:
        arrays = jax.device_put(arrays, replicated(mesh))
        differentiate = jax.jit(on_mesh(mesh, differentiate))
    (_, sums), gradients = differentiate(*arrays)
    return sums, gradients


def assert_near(gradients, expected) -> None:
    for one, other in zip(gradients, expected, strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        np.testing.assert_allclose(one, other, rtol=0.02, atol=0.01 * np.abs(other).max())


@pytest.mark.parametrize("v", [512, 700])  # whole blocks of words; the last one not full
def test_loss_and_gradients_equal_those_of_chunks(kernels, monkeypatch, v):
    assert kernels.fits(jax.ShapeDtypeStruct((B * T, D), jnp.bfloat16))
    sums, gradients = evaluate(v)
    monkeypatch.setattr(collectives, "platform", lambda: "cpu")
    expected_sums, expected = evaluate(v)
    chex.assert_trees_all_close(sums, expected_sums, rtol=1e-4)
    assert_near(gradients, expected)


@pytest.mark.parametrize("kernels", ["gpu"], indirect=True)
def test_tokens_in_chunks_give_the_same_gradients(kernels, monkeypatch):
    expected_sums, expected = evaluate(700)
    monkeypatch.setattr(kernels, "_BYTES", 2 * 768 * 2 * 128)
    assert kernels.chunks(B * T, 768) == 3, "two of the three tiles would fit, but not divide"
    sums, gradients = evaluate(700)
    chex.assert_trees_all_close(sums, expected_sums, rtol=1e-6)
    assert_near(gradients, expected)


@pytest.mark.parametrize("kernels", ["gpu"], indirect=True)
@pytest.mark.parametrize("data", [1, 3])
def test_every_device_has_its_words(kernels, data):
    """The vocabulary is split where the kernels' last block of words is not full."""
    expected_sums, expected = evaluate(700)
    mesh = build_mesh(MeshConfig(data=data, model=2), jax.devices()[: 2 * data])
    sums, gradients = evaluate(700, mesh)
    chex.assert_trees_all_close(sums, expected_sums, rtol=1e-5)
    assert_near(gradients, expected)


@pytest.mark.parametrize("kernels", ["gpu"], indirect=True)
def test_a_target_out_of_all_probability_has_a_finite_gradient(kernels):
    """Logits up to 200 above the target's, where exp of the difference has no number."""
    features, table = jnp.zeros((1, T, D), jnp.bfloat16).at[:, :, 0].set(20), jnp.zeros((512, D))
    table = table.at[:, 0].set(jnp.linspace(-5, 5, 512))
    targets, weights = jnp.zeros((1, T), jnp.int32), jnp.ones((1, T))

    def loss(features, table):
        sums = cross_entropy(features, table, targets, weights, 0.1, jnp.bfloat16)
        return sums.loss, sums

    (_, sums), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(features, table)
    assert 60 < sums.nll / sums.tokens < 70 and sums.correct == 0
    assert all(np.isfinite(np.asarray(each, np.float32)).all() for each in gradients)
    assert gradients[1][0, 0] < 0 < gradients[1][-1, 0], "towards the target, away from the others"


def test_what_the_kernels_of_a_gpu_do_not_take():
    fits = cross_entropy_gpu.fits
    assert fits(jax.ShapeDtypeStruct((256, 64), jnp.bfloat16))
    assert not fits(jax.ShapeDtypeStruct((200, 64), jnp.bfloat16))
    assert not fits(jax.ShapeDtypeStruct((256, 96), jnp.bfloat16))
