"""The GPU kernels of attention, interpreted on the CPU, against the formula that they replace."""

import collections
import dataclasses
import functools
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from support.jaxprs import equations
from support.samples import draw, draw_segments, equation_1, packed_attention

from flax_transformer.batch import Batch
from flax_transformer.config import MeshConfig
from flax_transformer.dry_run.flops import traced_flops
from flax_transformer.ops.attention import visible
from flax_transformer.ops.attention_gpu import fits, gpu_attention
from flax_transformer.parallel import collectives
from flax_transformer.parallel.sharding import build_mesh, on_mesh
from flax_transformer.training.step import loss_sums

KERNELS = ("attention", "attention_gradient")


@pytest.fixture
def as_on_gpu(monkeypatch):
    """Who asks for the platform hears gpu; kernels are interpreted."""
    monkeypatch.setattr(pl, "pallas_call", functools.partial(pl.pallas_call, interpret=True))
    monkeypatch.setattr(collectives, "platform", lambda: "gpu")


def describe(*shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(shape, dtype)


def calls(program) -> list[int]:
    """How often each of the kernels stands in a traced program."""
    names = collections.Counter(
        each.params["name"]
        for each in equations(program, used_alone=True)
        if each.primitive.name == "pallas_call"
    )
    return [names[name] for name in KERNELS]


def with_gradients(function, arrays, cotangent):
    result, pull = jax.vjp(function, *arrays)
    return jax.tree.map(lambda x: np.asarray(x, np.float32), (result, pull(cotangent)))


@pytest.mark.parametrize(
    ("t", "s", "h", "k", "sentences", "causal"),
    [
        (128, 256, 2, 64, 3, False),
        (256, 256, 1, 32, 12, True),
        (192, 192, 2, 32, 12, False),
        (64, 64, 1, 128, 1, True),
    ],
)
def test_heads_and_gradients_equal_the_formula(as_on_gpu, t, s, h, k, sentences, causal):
    arrays = draw(2, t, h, k), draw(2, s, h, k, seed=1), draw(2, s, h, k, seed=2)
    segments = (
        draw_segments(2, t, 3, sentences),
        draw_segments(2, s, 3 if causal else 4, sentences),
    )
    mask = visible(*segments, causal)
    assert fits(*arrays[:2]) and mask.any(axis=2).all()
    cotangent = draw(2, t, h, k, seed=5)
    found = with_gradients(lambda *x: packed_attention(*x, *segments, causal), arrays, cotangent)
    expected = with_gradients(lambda *x: equation_1(*x, mask), arrays, cotangent)
    chex.assert_trees_all_close(found, expected, rtol=0.02, atol=0.02)


def test_what_sees_nothing_is_finite_and_has_no_gradient(as_on_gpu):
    """Queries of a sentence that has no keys, in a block that meets none and in one that does."""
    arrays = [draw(1, 128, 1, 32, seed=seed) for seed in range(3)]
    queries = jnp.asarray([[1] * 40 + [2] * 24 + [3] * 64], jnp.int32)
    keys = jnp.ones((1, 128), jnp.int32)
    found, (dquery, dkey, dvalue) = with_gradients(
        lambda *x: gpu_attention(*x, queries, keys, False), arrays, draw(1, 128, 1, 32, seed=3)
    )
    assert np.isfinite(found).all() and not dquery[:, 40:].any() and dquery[:, :40].any()
    assert np.isfinite(dkey).all() and np.isfinite(dvalue).all()


def test_neighbours_in_the_row_are_exactly_unseen(as_on_gpu):
    """No bit of what one sentence finds, or of its gradients, depends on the others."""
    segments = draw_segments(2, 256, 3, 9)
    own = (segments == 4)[:, :, None, None]

    def of_own(factor):
        arrays = [
            jnp.where(own, x, factor * x) for x in (draw(2, 256, 1, 32, seed=i) for i in range(3))
        ]
        result = with_gradients(
            lambda *x: packed_attention(*x, segments, segments, True), arrays, draw(2, 256, 1, 32)
        )
        return jax.tree.map(lambda x: np.where(own, x, 0), result)

    chex.assert_trees_all_equal(of_own(1), of_own(-3))


@pytest.mark.parametrize(
    ("t", "s", "k", "dtype", "taken"),
    [
        (256, 256, 64, jnp.bfloat16, True),
        (64, 512, 128, jnp.bfloat16, True),
        (256, 256, 48, jnp.bfloat16, False),
        (256, 256, 16, jnp.bfloat16, False),
        (256, 256, 256, jnp.bfloat16, False),
        (96, 256, 64, jnp.bfloat16, False),
        (256, 32, 64, jnp.bfloat16, False),
        (256, 256, 64, jnp.float32, False),
    ],
)
def test_what_the_kernels_take(as_on_gpu, t, s, k, dtype, taken):
    query, key = describe(2, t, 4, k, dtype=dtype), describe(2, s, 4, k, dtype=dtype)
    assert fits(query, key) == taken
    if not taken:
        return
    segments = describe(2, t, dtype=jnp.int32), describe(2, s, dtype=jnp.int32)
    program = jax.make_jaxpr(lambda *x: packed_attention(*x, False))(query, key, key, *segments)
    assert calls(program) == [1, 0]


@pytest.mark.parametrize(("capability", "taken"), [("9.0", True), ("7.5", False)])
def test_gpus_without_bfloat16_take_none(as_on_gpu, monkeypatch, capability, taken):
    gpu = SimpleNamespace(
        client=SimpleNamespace(platform_version="cuda 13000"), compute_capability=capability
    )
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    assert fits(describe(2, 256, 8, 64), describe(2, 256, 8, 64)) == taken


def test_deterministic_runs_keep_them(as_on_gpu, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    x, segments = describe(2, 256, 4, 64), describe(2, 256, dtype=jnp.int32)
    program = jax.make_jaxpr(
        lambda x, segments: packed_attention(x, x, x, segments, segments, True)
    )
    assert calls(program(x, segments)) == [1, 0]


def test_operations_are_what_the_kernels_say(as_on_gpu):
    """Their loops have no length that a trace would tell."""
    x, segments = describe(2, 256, 4, 64), describe(2, 256, dtype=jnp.int32)

    def loss(query, key, value, segments):
        found = packed_attention(query, key, value, segments, segments, False)
        return found.astype(jnp.float32).sum()

    program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(x, x, x, segments)
    assert traced_flops(program) == (2 + 7) * 2 * 2 * 4 * 256 * 256 * 64


@pytest.mark.parametrize("axes", [{"data": 1}, {"data": 2, "fsdp": 2, "model": 2}])
@pytest.mark.parametrize(("remat", "forward"), [("nothing", 1), ("dots", 1), ("everything", 2)])
def test_remat_keeps_what_the_backward_pass_takes(as_on_gpu, small_config, random_params, axes,
                                                  remat, forward):  # fmt: skip
    """Calls for each of three kinds of attention; and the heads are kept once."""
    model = dataclasses.replace(
        small_config.model, d_model=64, num_heads=2, compute_dtype="bfloat16", remat=remat
    )
    config = dataclasses.replace(small_config, model=model)
    ids = describe(8, 64, dtype=jnp.int32)
    batch = Batch(*[ids] * len(Batch._fields))

    def loss(params, batch):
        return loss_sums(config, params, batch, jax.random.key(3)).loss

    mesh = build_mesh(MeshConfig(**axes), jax.devices()[: 8 if "model" in axes else 1])
    program = jax.make_jaxpr(on_mesh(mesh, jax.value_and_grad(loss)))(random_params(config), batch)
    assert calls(program) == [3 * forward, 3]
    if remat == "dots":
        # The encoder's and the decoder's forward loops: queries, keys, values and heads of three.
        kept = (model.num_encoder_layers, 8, 64, 2, 32)
        shapes = [
            variable.aval.shape
            for loop in equations(program)
            if loop.primitive.name == "scan"
            for variable in loop.outvars
        ]
        assert shapes.count(kept) == 3 * 4
