"""A training step with all kernels for NVIDIA GPUs, compiled for GPUs that are not there."""

import os
import subprocess
import sys

import pytest

from flax_transformer.dry_run.gpu_topology import plugin_package

COMPILED = """
import sys
from flax_transformer.dry_run.topology import prepare_environment, topology_devices
prepare_environment()
from flax_transformer.config import BatchConfig, Config, TokenizerConfig, TransformerConfig
from flax_transformer.dry_run.compilation import abstract_arguments
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.training.step import jit_train_step

config = Config(
    tokenizer=TokenizerConfig(vocabulary_size=4000),
    batch=BatchConfig(rows=8, source_length=128, target_length=128),
    model=TransformerConfig(
        num_encoder_layers=1, num_decoder_layers=1, d_model=512, num_heads=8, d_ff=1024,
        remat=sys.argv[2], compute_dtype="bfloat16",
    ),
)
mesh = build_mesh(config.mesh, topology_devices(sys.argv[1]))
state, batch, key = abstract_arguments(config, mesh)
print(jit_train_step(config, mesh, state).lower(state, batch, key).compile().as_text())
"""


needs_plugin = pytest.mark.skipif(
    plugin_package() is None, reason="needs jax's plugin: pip install '.[cuda13]'"
)


def printed(code: str, *words: str, flags: str) -> str:
    """What a process of its own prints: who has loaded jax cannot prepare its environment."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_plugin
@pytest.mark.parametrize(
    ("topology", "remat"), [("a100:1", "dots"), ("h100:1", "nothing"), ("h100:2", "dots")]
)
def test_a_step_is_made_of_them(topology, remat):
    lines = printed(COMPILED, topology, remat, flags=os.environ["XLA_FLAGS"]).splitlines()
    program = [line for line in lines if "custom-call(" in line]

    def calls(*words: str) -> int:
        return sum(all(word in line for word in words) for line in program)

    triton = "xla.gpu.triton"
    # Three attentions, each once in either direction, though remat computes other things again.
    assert calls(triton, "/attention/pallas_call") == 3
    assert calls(triton, "/attention_gradient/pallas_call") == 3
    assert calls("__cudnn$fmha") == 0
    assert calls(triton, "layer_norm_gradient") == 5  # two of the encoder's layer, three after
    assert calls(triton, "/cross_entropy/pallas_call") == 1
    # max(0, x W + b) is one call, twice.
    assert calls('"__cublas$lt$matmul"', '"epilogue":"BIAS_RELU"') == 2


ATTENTION = """
import sys
from flax_transformer.dry_run.topology import prepare_environment, topology_devices
prepare_environment()
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from flax_transformer.config import MeshConfig
from flax_transformer.ops.attention_gpu import gpu_attention
from flax_transformer.parallel.sharding import build_mesh, on_mesh

mesh = build_mesh(MeshConfig(), topology_devices(sys.argv[1]))

def describe(*shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

def both(query, key, value, segments, cotangent):
    heads, pull = jax.vjp(lambda *x: gpu_attention(*x, segments, segments, True), query, key, value)
    return heads, pull(cotangent)

for width in 32, 64, 128:
    x, segments = describe(8, 256, 4, width), describe(8, 256, dtype=jnp.int32)
    jax.jit(on_mesh(mesh, both)).lower(x, x, x, segments, x).compile()
    print(width)
"""


@needs_plugin
@pytest.mark.parametrize("topology", ["a100:1", "h100:1", "b200:1"])
def test_attention_needs_no_more_registers_than_there_are(topology):
    """What spills lies in memory, and is read and written in every turn of the kernel's loop.

    Compiled as for users, not quickly as for tests.
    """
    refuse = "--xla_gpu_fail_ptx_compilation_on_register_spilling=true"
    assert printed(ATTENTION, topology, flags=refuse).split() == ["32", "64", "128"]
