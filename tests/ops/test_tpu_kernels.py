"""The TPU kernels, interpreted on the CPU, against the formulas that they replace."""

import functools
import importlib.util

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from support.samples import draw, draw_segments, equation_1, packed_attention

from flax_transformer.config import MeshConfig, TransformerConfig
from flax_transformer.dry_run import topology
from flax_transformer.models.transformer import MultiHeadAttention
from flax_transformer.ops import cross_entropy_tpu
from flax_transformer.ops.attention import visible
from flax_transformer.ops.attention_tpu import fits, tpu_attention
from flax_transformer.parallel import collectives
from flax_transformer.parallel.sharding import AXES, build_mesh, on_mesh


@pytest.fixture
def as_on_tpu(monkeypatch):
    """Who asks for the platform hears tpu; kernels are interpreted."""
    monkeypatch.setattr(pl, "pallas_call", functools.partial(pl.pallas_call, interpret=True))
    monkeypatch.setattr(collectives, "platform", lambda: "tpu")


@pytest.mark.parametrize(
    ("t", "s", "h", "k", "causal"),
    [
        (128, 256, 4, 64, False),  # two heads share the lanes
        (512, 512, 1, 128, True),  # two blocks of queries
        (128, 128, 8, 32, True),  # four heads share the lanes
    ],
)
def test_attention_and_gradients_equal_the_formula(as_on_tpu, t, s, h, k, causal):
    query, key, value = draw(2, t, h, k), draw(2, s, h, k, seed=1), draw(2, s, h, k, seed=2)
    segments = draw_segments(2, t, 3), draw_segments(2, s, 3 if causal else 4)
    cotangent = draw(2, t, h, k, seed=5)
    assert fits(query, key)
    mask = visible(*segments, causal)
    assert mask.any(axis=2).all(), "a query that sees nothing would be another case"

    def both(function):
        result, pull = jax.vjp(function, query, key, value)
        return result, pull(cotangent)

    result = both(lambda *x: packed_attention(*x, *segments, causal))
    expected = both(lambda *x: equation_1(*x, mask))
    chex.assert_trees_all_close(
        *(jax.tree.map(lambda x: x.astype(jnp.float32), tree) for tree in (result, expected)),
        rtol=0.02,
        atol=0.02,
    )


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_the_reference_has_no_kernel(as_on_tpu, kernels):
    config = TransformerConfig(num_heads=2, d_model=128, compute_dtype="bfloat16", kernels=kernels)
    module = MultiHeadAttention(config, causal=True)
    x, segments = jnp.zeros((1, 128, 128), jnp.bfloat16), jnp.ones((1, 128), jnp.int32)

    def attend(x):
        return module.init_with_output(jax.random.key(0), x, x, segments, segments)[0]

    assert ("pallas_call" in str(jax.make_jaxpr(attend)(x))) == (kernels == "fast")


@pytest.mark.parametrize(
    ("axes", "rows", "heads", "kernel"),
    [
        ({"data": 4, "model": 2}, 8, 8, True),  # four heads of 64 on a device
        ({"data": 1, "model": 4}, 8, 8, True),
        ({"data": 1, "model": 8}, 8, 8, False),  # one of 64, which fills half of the lanes
        ({"data": 2, "model": 4}, 8, 6, False),  # heads that the devices do not divide
        ({"data": 4, "model": 2}, 6, 8, False),  # rows that they do not divide
    ],
)
def test_what_one_device_gets_decides(as_on_tpu, axes, rows, heads, kernel):
    def gradient(x, segments):
        def loss(x):
            return packed_attention(x, x, x, segments, segments, True).astype(jnp.float32).sum()

        return jax.grad(loss)(x)

    x = jax.ShapeDtypeStruct((rows, 128, heads, 64), jnp.bfloat16)
    segments = jax.ShapeDtypeStruct((rows, 128), jnp.int32)
    size = axes["data"] * axes["model"]
    mesh = build_mesh(MeshConfig(**axes), jax.devices()[:size])
    program = str(jax.make_jaxpr(on_mesh(mesh, gradient))(x, segments))
    assert ("pallas_call" in program) == kernel


def test_parts_that_devices_have_already_are_not_divided_again(as_on_tpu):
    """As in a search, where no axis of the mesh is left to XLA."""
    mesh = build_mesh(MeshConfig(data=2, model=4))

    def attend(x, segments):
        return packed_attention(x, x, x, segments, segments, True)

    rows = jax.sharding.PartitionSpec(AXES)
    on_each = jax.shard_map(
        attend, mesh=mesh, in_specs=(rows, rows), out_specs=rows, check_vma=False
    )
    x = jax.ShapeDtypeStruct((8, 128, 2, 64), jnp.bfloat16)
    segments = jax.ShapeDtypeStruct((8, 128), jnp.int32)
    assert "pallas_call" in str(jax.make_jaxpr(on_each)(x, segments))


needs_tpu_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install '.[tpu]'"
)


@pytest.fixture
def v5e(monkeypatch):
    """Where an array lies on a TPU v5e that is not there."""
    for name, value in topology.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return jax.sharding.SingleDeviceSharding(topology.topology_devices("v5e:2x2")[0])


def longest(h, k):
    """Queries and keys, as many as `fits` accepts."""

    def describe(t):
        return jax.ShapeDtypeStruct((2, t, h, k), jnp.bfloat16)

    lengths = [t for t in range(128, 8192, 128) if fits(describe(t), describe(t))]
    return max(lengths)


@needs_tpu_compiler
@pytest.mark.parametrize(("h", "k"), [(4, 64), (2, 128), (8, 32)])
def test_the_longest_rows_that_fit_compile(v5e, h, k):
    t = longest(h, k)
    x = jax.ShapeDtypeStruct((2, t, h, k), jnp.bfloat16, sharding=v5e)
    segments = jax.ShapeDtypeStruct((2, t), jnp.int32, sharding=v5e)

    def attend(x, segments):
        return tpu_attention(x, x, x, segments, segments, True)

    def gradient(x, segments):
        return jax.grad(lambda x: attend(x, segments).astype(jnp.float32).sum())(x)

    for function in (attend, gradient):
        compiled = jax.jit(function).trace(x, segments).lower().compile()
        assert "tpu_custom_call" in compiled.as_text()


def test_rows_that_would_not_fit_take_the_formula(as_on_tpu):
    def program(t, h, k):
        x = jax.ShapeDtypeStruct((2, t, h, k), jnp.bfloat16)
        segments = jax.ShapeDtypeStruct((2, t), jnp.int32)
        return str(
            jax.make_jaxpr(lambda x, segments: packed_attention(x, x, x, *[segments] * 2, True))(
                x, segments
            )
        )

    assert "pallas_call" not in program(2048, 16, 64)
    t = longest(16, 64)
    assert t >= 512, "rows of the paper's big model"
    assert "pallas_call" in program(t, 16, 64)
    assert "pallas_call" not in program(t + 128, 16, 64)


def test_shapes_that_the_attention_kernel_leaves_to_the_formula():
    assert not fits(draw(1, 100, 2, 64), draw(1, 128, 2, 64))  # lanes not full
    assert not fits(draw(1, 128, 2, 48), draw(1, 128, 2, 48))  # heads across lanes
    assert not fits(draw(1, 128, 2, 64).astype(jnp.float32), draw(1, 128, 2, 64))


@needs_tpu_compiler
@pytest.mark.parametrize("d", [512, 1024, 1536])
def test_loss_kernels_that_fit_compile(v5e, d):
    """Of 36,864 words, which no padding completes: with it, the compiler finds room for more."""
    n, v = 2048, 36_864

    def describe(*shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=v5e)

    features, table = describe(n, d), describe(v, d)
    assert cross_entropy_tpu.fits(features)
    targets, row = describe(n, dtype=jnp.int32), describe(n, dtype=jnp.float32)
    jax.jit(cross_entropy_tpu.statistics).trace(features, table, targets).lower().compile()
    gradients = functools.partial(cross_entropy_tpu.gradients, shares=(0.9, 1e-5))
    jax.jit(gradients).trace(features, table, targets, row, row).lower().compile()


def test_features_that_the_loss_kernels_leave_to_chunks():
    def describe(n, d):
        return jax.ShapeDtypeStruct((n, d), jnp.bfloat16)

    assert cross_entropy_tpu.fits(describe(2048, 1024))
    assert not cross_entropy_tpu.fits(describe(2048, 4096))  # no block is small enough
    assert not cross_entropy_tpu.fits(describe(2000, 1024))
    assert not cross_entropy_tpu.fits(describe(2048, 1000))
