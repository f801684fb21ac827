"""Bytes that programs for NVIDIA GPUs move: three whose traffic follows from their arrays.

Once as XLA writes them for an H100, in a text of ours, which needs no plugin; once compiled.
"""

import os
import subprocess
import sys

import pytest

from flax_transformer.dry_run.gpu_topology import plugin_package
from flax_transformer.dry_run.memory_traffic import bytes_moved
from flax_transformer.dry_run.program_text import Program

CHAIN = """HloModule jit_f, is_scheduled=true

%fused_add (param_0: f32[64,256]) -> f32[64,256] {
  %param_0 = f32[64,256]{1,0} parameter(0)
  %two = f32[] constant(2)
  %twos = f32[64,256]{1,0} broadcast(%two), dimensions={}
  %doubled = f32[64,256]{1,0} multiply(%param_0, %twos)
  %tanh = f32[64,256]{1,0} tanh(%doubled)
  ROOT %sum = f32[64,256]{1,0} add(%tanh, %param_0)
}

ENTRY %main (x: f32[64,256]) -> (f32[128,128], f32[64,256]) {
  %x = f32[64,256]{1,0} parameter(0)
  %loop_fusion = f32[64,256]{1,0} fusion(%x), kind=kLoop, calls=%fused_add
  %renamed = f32[128,128]{1,0} bitcast(%loop_fusion)
  ROOT %both = (f32[128,128]{1,0}, f32[64,256]{1,0}) tuple(%renamed, %loop_fusion)
}
"""

# A turn reads a slice of one stack, in a fusion that other work overlaps, and writes a slice of
# another one in place, in a second such fusion.
SCAN = """HloModule jit_g, is_scheduled=true

%fused_slice (stack: f32[6,64,256], i: s32[]) -> f32[64,256] {
  %stack = f32[6,64,256]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %one = f32[1,64,256]{2,1,0} dynamic-slice(%stack, %i, %zero, %zero), dynamic_slice_sizes={1,64,256}
  ROOT %slice = f32[64,256]{1,0} bitcast(%one)
}

%fused_update (stack.2: f32[6,64,256], new: f32[64,256], i.2: s32[]) -> f32[6,64,256] {
  %stack.2 = f32[6,64,256]{2,1,0} parameter(0)
  %new = f32[64,256]{1,0} parameter(1)
  %i.2 = s32[] parameter(2)
  %zero.2 = s32[] constant(0)
  %tanh = f32[64,256]{1,0} tanh(%new)
  %one.2 = f32[1,64,256]{2,1,0} bitcast(%tanh)
  ROOT %update = f32[6,64,256]{2,1,0} dynamic-update-slice(%stack.2, %one.2, %i.2, %zero.2, %zero.2)
}

%body (state: (s32[], f32[6,64,256], f32[6,64,256])) -> (s32[], f32[6,64,256], f32[6,64,256]) {
  %state = (s32[], f32[6,64,256]{2,1,0}, f32[6,64,256]{2,1,0}) parameter(0)
  %index = s32[] get-tuple-element(%state), index=0
  %in = f32[6,64,256]{2,1,0} get-tuple-element(%state), index=1
  %out = f32[6,64,256]{2,1,0} get-tuple-element(%state), index=2
  %begin = ((f32[6,64,256]{2,1,0}, s32[]), f32[64,256]{1,0}, u32[]) fusion-start(%in, %index), kind=kLoop, calls=%fused_slice
  %end = f32[64,256]{1,0} fusion-done(%begin)
  %begin.2 = ((f32[6,64,256]{2,1,0}, f32[64,256]{1,0}, s32[]), f32[6,64,256]{2,1,0}, u32[]) fusion-start(%out, %end, %index), kind=kLoop, calls=%fused_update
  %end.2 = f32[6,64,256]{2,1,0} fusion-done(%begin.2)
  ROOT %next = (s32[], f32[6,64,256]{2,1,0}, f32[6,64,256]{2,1,0}) tuple(%index, %in, %end.2)
}

%condition (state.2: (s32[], f32[6,64,256], f32[6,64,256])) -> pred[] {
  %state.2 = (s32[], f32[6,64,256]{2,1,0}, f32[6,64,256]{2,1,0}) parameter(0)
  ROOT %always = pred[] constant(true)
}

ENTRY %main (x: f32[6,64,256], y: f32[6,64,256]) -> f32[6,64,256] {
  %x = f32[6,64,256]{2,1,0} parameter(0)
  %y = f32[6,64,256]{2,1,0} parameter(1)
  %from = s32[] constant(0)
  %start = (s32[], f32[6,64,256]{2,1,0}, f32[6,64,256]{2,1,0}) tuple(%from, %x, %y)
  %loop = (s32[], f32[6,64,256]{2,1,0}, f32[6,64,256]{2,1,0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"6"}}
  ROOT %result = f32[6,64,256]{2,1,0} get-tuple-element(%loop), index=2
}
"""  # noqa: E501

# cuBLAS adds the bias and takes the larger of that and zero. Then it multiplies a slice of a stack,
# and puts the result into another stack.
PRODUCT = """HloModule jit_h, is_scheduled=true

%slices (p.0: bf16[3,256,512], p.1: bf16[64,256], p.2: bf16[5,64,512]) -> (bf16[5,64,512], s8[33554432]) {
  %p.1 = bf16[64,256]{1,0} parameter(1)
  %p.0 = bf16[3,256,512]{2,1,0} parameter(0)
  %p.2 = bf16[5,64,512]{2,1,0} parameter(2)
  %zero = s32[] constant(0)
  %slice = bf16[1,256,512]{2,1,0} slice(%p.0), slice={[1:2], [0:256], [0:512]}
  %matrix = bf16[256,512]{1,0} bitcast(%slice)
  %call = (bf16[64,512]{1,0}, s8[33554432]{0}) custom-call(%p.1, %matrix), custom_call_target="__cublas$lt$matmul"
  %product = bf16[64,512]{1,0} get-tuple-element(%call), index=0
  %one = bf16[1,64,512]{2,1,0} bitcast(%product)
  %update = bf16[5,64,512]{2,1,0} dynamic-update-slice(%p.2, %one, %zero, %zero, %zero)
  %workspace = s8[33554432]{0} get-tuple-element(%call), index=1
  ROOT %both = (bf16[5,64,512]{2,1,0}, s8[33554432]{0}) tuple(%update, %workspace)
}

ENTRY %main (x: bf16[64,128], w: bf16[128,256], b: bf16[256], s: bf16[3,256,512], r: bf16[5,64,512]) -> bf16[5,64,512] {
  %x = bf16[64,128]{1,0} parameter(0)
  %w = bf16[128,256]{1,0} parameter(1)
  %b = bf16[256]{0} parameter(2)
  %s = bf16[3,256,512]{2,1,0} parameter(3)
  %r = bf16[5,64,512]{2,1,0} parameter(4)
  %first = (bf16[64,256]{1,0}, s8[33554432]{0}) custom-call(%x, %w, %b), custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"epilogue":"BIAS_RELU"}}
  %hidden = bf16[64,256]{1,0} get-tuple-element(%first), index=0
  %second = (bf16[5,64,512]{2,1,0}, s8[33554432]{0}) fusion(%s, %hidden, %r), kind=kCustom, calls=%slices
  ROOT %result = bf16[5,64,512]{2,1,0} get-tuple-element(%second), index=0
}
"""  # noqa: E501

ATTENTION = """HloModule jit_a, is_scheduled=true

ENTRY %main (q: bf16[4,128,2,64], k: bf16[4,64,2,64], v: bf16[4,64,2,64], m: bf16[4,1,128,64]) -> bf16[4,2,128,64] {
  %q = bf16[4,128,2,64]{3,2,1,0} parameter(0)
  %k = bf16[4,64,2,64]{3,2,1,0} parameter(1)
  %v = bf16[4,64,2,64]{3,2,1,0} parameter(2)
  %m = bf16[4,1,128,64]{3,2,1,0} parameter(3)
  %heads = (bf16[4,2,128,64]{3,1,2,0}, f32[4,2,128]{2,1,0}, u8[262144]{0}) custom-call(%q, %k, %v, %m), custom_call_target="__cudnn$fmhaScaleBiasSoftmax"
  ROOT %result = bf16[4,2,128,64]{3,1,2,0} get-tuple-element(%heads), index=0
}
"""  # noqa: E501


# Adds rows to some of a table, in place.
SCATTER = """HloModule jit_s, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%fused_scatter (table: f32[4000,64], rows: bf16[32,64], ids: s32[32]) -> f32[4000,64] {
  %table = f32[4000,64]{1,0} parameter(0)
  %ids = s32[32]{0} parameter(2)
  %places = s32[32,1]{1,0} bitcast(%ids)
  %rows = bf16[32,64]{1,0} parameter(1)
  %wide = f32[32,64]{1,0} convert(%rows)
  %updates = f32[32,1,64]{2,1,0} bitcast(%wide)
  ROOT %scatter = f32[4000,64]{1,0} scatter(%table, %places, %updates), update_window_dims={1,2}, inserted_window_dims={}, scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=%add
}

ENTRY %main (t: f32[4000,64], r: bf16[32,64], i: s32[32]) -> f32[4000,64] {
  %t = f32[4000,64]{1,0} parameter(0)
  %r = bf16[32,64]{1,0} parameter(1)
  %i = s32[32]{0} parameter(2)
  ROOT %input_scatter_fusion = f32[4000,64]{1,0} fusion(%t, %r, %i), kind=kInput, calls=%fused_scatter
}
"""  # noqa: E501


def test_a_scatter_moves_its_updates_and_the_rows_that_they_are_added_to():
    assert bytes_moved(Program(SCATTER)) == 2 * 32 * 64 * 4 + 32 * 64 * 2 + 32 * 4


def test_a_chain_of_elementwise_operations_reads_and_writes_once():
    assert bytes_moved(Program(CHAIN)) == 2 * 64 * 256 * 4


def test_a_scan_moves_slices_of_its_stacks():
    """Each turn reads one and writes one, twice; every fusion also reads the index."""
    assert bytes_moved(Program(SCAN)) == 6 * (4 * 64 * 256 * 4 + 2 * 4)


def test_a_product_moves_its_operands_and_results_but_no_workspace():
    first = 64 * 128 + 128 * 256 + 256 + 64 * 256
    second = 64 * 256 + 256 * 512 + 64 * 512
    assert bytes_moved(Program(PRODUCT)) == 2 * (first + second)


def test_cudnn_moves_its_operands_and_results_but_no_workspace():
    queries, keys, mask, statistics = 4 * 128 * 128, 4 * 64 * 128, 4 * 128 * 64, 4 * 2 * 128
    expected = 2 * (2 * queries + 2 * keys + mask) + 4 * statistics
    assert bytes_moved(Program(ATTENTION)) == expected


COMPILED = """
from flax_transformer.dry_run.topology import prepare_environment, topology_devices
prepare_environment()
import jax
import jax.numpy as jnp
from flax_transformer.dry_run.memory_traffic import bytes_moved
from flax_transformer.dry_run.program_text import Program

place = jax.sharding.SingleDeviceSharding(topology_devices("h100:1")[0])

def moved(function, *shapes, dtype=jnp.float32):
    arrays = [jax.ShapeDtypeStruct(shape, dtype, sharding=place) for shape in shapes]
    return bytes_moved(Program(jax.jit(function).lower(*arrays).compile().as_text()))

size = 1024 * 2048 * 4
print(moved(lambda x: jnp.tanh(2 * x) + x, (1024, 2048)) / size)

def scan(stack):
    return jax.lax.scan(lambda count, x: (count + 1, jnp.tanh(x) * count), 0.0, stack)[1]

print(moved(scan, (16, 1024, 2048)) / size / 16)

def product(x, w, b):
    return jax.nn.relu(x @ w + b)

arrays = 1024 * 2048 + 2048 * 4096 + 4096 + 1024 * 4096
print(moved(product, (1024, 2048), (2048, 4096), (4096,), dtype=jnp.bfloat16) / arrays / 2)
"""


@pytest.mark.skipif(plugin_package() is None, reason="needs jax's plugin: pip install '.[cuda13]'")
def test_compiled_for_a_gpu_that_is_not_there():
    """The scan may fill its result with zeros first, and a product may write its sum beside it."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    chain, scan, product = map(float, done.stdout.split())
    assert chain == pytest.approx(2)
    assert 2 <= scan < 3.01
    assert product == pytest.approx(1, rel=0.01)
