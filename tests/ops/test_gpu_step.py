"""A training step with every kernel for GPUs, interpreted on the CPU, against the plain lines."""

import collections
import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
from jax.experimental import pallas as pl
from support.jaxprs import equations
from support.samples import draw_segments

from flax_transformer.batch import Batch
from flax_transformer.config import MeshConfig
from flax_transformer.ops import attention_gpu, cross_entropy_gpu, layer_norm_gpu
from flax_transformer.parallel import collectives
from flax_transformer.parallel.sharding import batch_sharding, build_mesh, on_mesh
from flax_transformer.training.state import create_state
from flax_transformer.training.step import mean_gradient

ROWS, LENGTH = 4, 128


@pytest.fixture
def as_on_gpu(monkeypatch):
    """Who asks for the platform hears gpu; kernels are interpreted."""
    monkeypatch.setattr(pl, "pallas_call", functools.partial(pl.pallas_call, interpret=True))
    monkeypatch.setattr(collectives, "platform", lambda: "gpu")


def packed_rows(vocabulary_size: int) -> Batch:
    """Random tokens in sentences, each row with padding at its end."""
    random = np.random.default_rng(0)
    ids = [random.integers(4, vocabulary_size, (ROWS, LENGTH), np.int32) for _ in range(3)]
    source, target = (np.array(draw_segments(ROWS, LENGTH, seed, 6)) for seed in (1, 2))
    for segments in (source, target):
        segments[:, -9:] = 0
    positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (ROWS, LENGTH))
    return Batch(
        source_ids=ids[0], source_segments=source, source_positions=positions,
        target_inputs=ids[1], target_outputs=ids[2], target_segments=target,
        target_positions=positions,
    )  # fmt: skip


def evaluate(small_config, dtype: str, kernels: str, remat: str = "nothing", **axes: int):
    """Returns the kernels of a step by name, and its gradients and sums in float64."""
    model = dataclasses.replace(
        small_config.model, num_encoder_layers=1, num_decoder_layers=1, d_model=128,
        num_heads=2, dropout=0.1, remat=remat, compute_dtype=dtype, kernels=kernels,
    )  # fmt: skip
    config = dataclasses.replace(small_config, model=model)
    mesh = build_mesh(MeshConfig(**axes), jax.devices()[: math.prod(axes.values())])
    state = create_state(config, mesh)
    batch = packed_rows(config.tokenizer.vocabulary_size)
    batch = jax.device_put(batch, batch_sharding(mesh))
    step = jax.jit(on_mesh(mesh, functools.partial(mean_gradient, config)))
    traced = step.trace(state, batch, jax.random.key(3))
    gradients, sums = traced.lower().compile()(state, batch, jax.random.key(3))
    names = collections.Counter(
        each.params["name"]
        for each in equations(traced.jaxpr, used_alone=True)
        if each.primitive.name == "pallas_call"
    )
    return names, jax.tree.map(np.float64, jax.device_get((gradients, sums)))


@pytest.fixture(scope="module")
def plain_lines(small_config):
    """What they give in float32 and in bfloat16."""
    return [evaluate(small_config, dtype, "reference", data=1) for dtype in ("float32", "bfloat16")]


@pytest.mark.parametrize(
    ("remat", "axes"), [("nothing", {"data": 1}), ("dots", {"data": 2, "model": 2})]
)
def test_loss_and_gradients_equal_those_of_the_plain_lines(
    plain_lines, as_on_gpu, small_config, remat, axes
):
    (none, (exact, exact_sums)), (_, (plain, _)) = plain_lines
    names, (fast, sums) = evaluate(small_config, "bfloat16", "fast", remat, **axes)
    assert not none
    assert names == {
        "attention": 3, "attention_gradient": 3, "layer_norm_gradient": 5, "cross_entropy": 1,
    }  # fmt: skip
    np.testing.assert_allclose(sums, exact_sums, rtol=2e-3)
    for own, reference, true in zip(*map(jax.tree.leaves, (fast, plain, exact)), strict=True):
        size = np.linalg.norm(true)
        assert np.linalg.norm(own - true) < 2 * np.linalg.norm(reference - true) + 0.01 * size


def test_what_this_step_is_made_of_fits(as_on_gpu):
    heads = jax.ShapeDtypeStruct((ROWS // 2, LENGTH, 1, 64), "bfloat16")
    assert attention_gpu.fits(heads, heads)
    assert layer_norm_gpu.fits(jax.ShapeDtypeStruct((ROWS // 2, LENGTH, 128), "bfloat16"))
    assert cross_entropy_gpu.fits(jax.ShapeDtypeStruct((ROWS // 2 * LENGTH, 128), "bfloat16"))
