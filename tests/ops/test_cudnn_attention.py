"""cuDNN's attention, as far as programs for a GPU can be made and read where there is none."""

import collections
import dataclasses
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.sharding import PartitionSpec
from support.jaxprs import equations
from support.samples import equation_1, packed_attention

from flax_transformer.config import MeshConfig
from flax_transformer.models.attention_weights import attention_weights
from flax_transformer.ops import attention_cudnn, attention_gpu
from flax_transformer.ops.attention import visible
from flax_transformer.parallel import collectives
from flax_transformer.parallel.sharding import AXES, build_mesh
from flax_transformer.training.step import loss_sums


@pytest.fixture
def as_on_gpu(monkeypatch):
    """Who asks for the platform hears gpu, our own kernels take nothing, and jax finds a cuDNN."""
    monkeypatch.setattr(collectives, "platform", lambda: "gpu")
    monkeypatch.setattr(attention_gpu, "fits", lambda *_: False)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 92300)


def describe(*shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(shape, dtype)


def calls(function, *arguments) -> collections.Counter:
    """How often each primitive stands in the program of `function`."""
    return collections.Counter(
        each.primitive.name for each in equations(jax.make_jaxpr(function)(*arguments))
    )


@pytest.mark.parametrize(
    ("t", "s", "k", "dtype", "taken"),
    [
        (256, 256, 64, jnp.bfloat16, True),
        (48, 32, 8, jnp.bfloat16, True),
        (256, 256, 128, jnp.bfloat16, True),
        (256, 256, 25, jnp.bfloat16, False),
        (256, 256, 36, jnp.bfloat16, False),
        (256, 256, 512, jnp.bfloat16, False),
        (255, 256, 64, jnp.bfloat16, False),
        (256, 31, 64, jnp.bfloat16, False),
        (256, 256, 64, jnp.float32, False),
    ],
)
def test_what_cudnn_does_not_take_the_formula_computes(as_on_gpu, t, s, k, dtype, taken):
    query, key = describe(2, t, 4, k, dtype=dtype), describe(2, s, 4, k, dtype=dtype)
    segments = describe(2, t, dtype=jnp.int32), describe(2, s, dtype=jnp.int32)
    assert attention_cudnn.fits(query, key) == taken

    def loss(query, key, value, *segments):
        return packed_attention(query, key, value, *segments, False).astype(jnp.float32).sum()

    found = calls(jax.grad(loss, argnums=(0, 1, 2)), query, key, key, *segments)
    assert (found[attention_cudnn.FORWARD_CALL], found[attention_cudnn.BACKWARD_CALL]) == (
        taken,
        taken,
    )
    assert ("dot_general" in found) != taken


def test_where_kernels_must_be_deterministic_the_formula_runs(as_on_gpu, monkeypatch):
    x, segments = describe(2, 256, 4, 64), describe(2, 256, dtype=jnp.int32)

    def kernels(flags: str) -> int:
        monkeypatch.setenv("XLA_FLAGS", flags)

        def loss(x, segments):
            return packed_attention(x, x, x, segments, segments, True).astype(jnp.float32).sum()

        found = calls(jax.grad(loss), x, segments)
        return found[attention_cudnn.FORWARD_CALL] + found[attention_cudnn.BACKWARD_CALL]

    assert kernels("") == 2
    assert kernels("--xla_gpu_deterministic_ops=true") == 0


def test_without_cudnn_the_formula_runs(as_on_gpu, monkeypatch):
    def missing():
        raise RuntimeError("cuDNN is not detected.")

    monkeypatch.setattr(cudnn, "check_cudnn_version", missing)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 2, 8)), jnp.bfloat16)
    segments = jnp.ones((1, 8), jnp.int32)
    expected = equation_1(x, x, x, visible(segments, segments, True))
    chex.assert_trees_all_equal(packed_attention(x, x, x, segments, segments, True), expected)


@pytest.mark.parametrize(
    ("software", "capability", "taken"),
    [
        ("PJRT C API\ncuda 13000", "9.0", True),
        ("PJRT C API\ncuda 12090", "8.0", True),
        ("PJRT C API\ncuda 12090", "7.5", False),
        ("PJRT C API\nrocm 60400", "gfx942", False),
    ],
)
def test_gpus_that_have_no_such_kernel(as_on_gpu, monkeypatch, software, capability, taken):
    gpu = SimpleNamespace(
        client=SimpleNamespace(platform_version=software), compute_capability=capability
    )
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    query = describe(2, 256, 8, 64)
    assert attention_cudnn.fits(query, query) == taken


def test_weights_can_be_read_where_cudnn_never_has_them(
    as_on_gpu, small_config, random_params, packed_batch
):
    model = dataclasses.replace(small_config.model, num_heads=2, compute_dtype="bfloat16")
    config = dataclasses.replace(small_config, model=model)
    found = jax.eval_shape(
        lambda params: attention_weights(config, params, packed_batch), random_params(config)
    )
    assert {name: weights.shape for name, weights in found.items()} == dict.fromkeys(
        ("encoder", "decoder", "cross"), (2, 8, 2, 16, 16)
    )


def test_devices_with_rows_of_their_own_use_it(as_on_gpu):
    """As in a search, where no axis of the mesh is left to XLA."""
    mesh = build_mesh(MeshConfig())

    def attend(x, segments):
        return packed_attention(x, x, x, segments, segments, True)

    rows = PartitionSpec(AXES)
    on_each = jax.shard_map(
        attend, mesh=mesh, in_specs=(rows, rows), out_specs=rows, check_vma=False
    )
    found = calls(on_each, describe(8, 16, 2, 8), describe(8, 16, dtype=jnp.int32))
    assert found[attention_cudnn.FORWARD_CALL] == 1


@pytest.mark.parametrize(("remat", "forward"), [("nothing", 1), ("dots", 1), ("everything", 2)])
def test_remat_keeps_what_the_backward_pass_takes(
    as_on_gpu, small_config, random_params, packed_batch, remat, forward
):
    """Calls for each of three kinds of attention; and the heads are kept once."""
    model = dataclasses.replace(
        small_config.model, num_heads=2, compute_dtype="bfloat16", dropout=0.1, remat=remat
    )
    config = dataclasses.replace(small_config, model=model)

    def loss(params):
        return loss_sums(config, params, packed_batch, jax.random.key(3)).loss

    program = jax.make_jaxpr(jax.value_and_grad(loss))(random_params(config))
    found = collections.Counter(each.primitive.name for each in equations(program))
    assert found[attention_cudnn.FORWARD_CALL] == 3 * forward
    assert found[attention_cudnn.BACKWARD_CALL] == 3
    if remat == "dots":
        # The encoder's and the decoder's forward loops: queries, keys, values and heads of three.
        kept = (model.num_encoder_layers, *packed_batch.source_ids.shape, 2, 8)
        shapes = [
            variable.aval.shape
            for loop in equations(program)
            if loop.primitive.name == "scan"
            for variable in loop.outvars
        ]
        assert shapes.count(kept) == 3 * 4
