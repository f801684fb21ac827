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
        remat="dots", compute_dtype="bfloat16",
    ),
)
mesh = build_mesh(config.mesh, topology_devices(sys.argv[1]))
state, batch, key = abstract_arguments(config, mesh)
print(jit_train_step(config, mesh, state).lower(state, batch, key).compile().as_text())
"""


@pytest.mark.skipif(plugin_package() is None, reason="needs jax's plugin: pip install '.[cuda13]'")
@pytest.mark.parametrize("topology", ["a100:1", "h100:1", "h100:2"])
def test_a_step_is_made_of_them(topology):
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, topology],
        env=os.environ.copy(), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    program = [line for line in done.stdout.splitlines() if "custom-call(" in line]

    def calls(*words: str) -> int:
        return sum(all(word in line for word in words) for line in program)

    triton = "xla.gpu.triton"
    # Three attentions, each once in either direction, though remat computes other things again.
    assert calls('"__cudnn$fmhaScaleBiasSoftmax"') == 3
    assert calls('"__cudnn$fmhaScaleBiasSoftmaxBackward"') == 3
    assert calls(triton, "layer_norm_gradient") == 5  # two of the encoder's layer, three after
    assert calls(triton, "cross_entropy_statistics") == 1
    assert calls(triton, "cross_entropy_gradient") == 1
    # max(0, x W + b) is one call, twice.
    assert calls('"__cublas$lt$matmul"', '"epilogue":"BIAS_RELU"') == 2
