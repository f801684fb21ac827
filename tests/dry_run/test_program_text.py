"""Reading compiled programs: loops count with their turns, collectives once."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_transformer.dry_run.collectives import collectives, first_group
from flax_transformer.dry_run.memory_traffic import bytes_moved
from flax_transformer.dry_run.program_text import Program

TURNS = 5

# As the TPU compiler writes loops and collectives: no number of turns, and an all-gather that is
# spread over two fusions. S(1) is memory inside the chip.
TPU_TEXT = """HloModule jit_f, is_scheduled=true, num_partitions=4

%part.1 (p.1: bf16[128,512]) -> (bf16[128,512], bf16[512,512]) {
  %p.1 = bf16[128,512]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[512,512]{1,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=7, replica_groups=mesh['a'=4] {'a'}, dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"-1","flag_end":"-1"}}
  ROOT %call.1 = (bf16[128,512]{1,0:T(8,128)(2,1)}, bf16[512,512]{1,0:T(8,128)(2,1)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%part.2 (p.2: bf16[128,512]) -> bf16[512,512] {
  %p.2 = bf16[128,512]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.2 = bf16[512,512]{1,0:T(8,128)(2,1)} all-gather(%p.2), channel_id=7, replica_groups=mesh['a'=4] {'a'}, dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"2","flag_end":"15"}}
}

%all-reduce-scatter.1 (p.3: f32[8,128]) -> f32[2,128] {
  %p.3 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %zero.3 = s32[]{:T(128)} constant(0)
  %all-reduce.3 = f32[8,128]{1,0:T(8,128)} all-reduce(%p.3), channel_id=8, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %slice.3 = f32[2,128]{1,0:T(2,128)} dynamic-slice(%all-reduce.3, %zero.3, %zero.3), dynamic_slice_sizes={2,128}
}

%body (state: (s32[], bf16[128,512], f32[8,128])) -> (s32[], bf16[128,512], f32[8,128]) {
  %state = (s32[]{:T(128)}, bf16[128,512]{1,0:T(8,128)(2,1)}, f32[8,128]{1,0:T(8,128)S(1)}) parameter(0)
  %two = s32[]{:T(128)} constant(2)
  %index = s32[]{:T(128)} get-tuple-element(%state), index=0
  %shard = bf16[128,512]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=1
  %sums = f32[8,128]{1,0:T(8,128)S(1)} get-tuple-element(%state), index=2
  %begin = (bf16[128,512]{1,0:T(8,128)(2,1)}, bf16[512,512]{1,0:T(8,128)(2,1)S(1)}) fusion(%shard), kind=kCustom, calls=%part.1
  %end = bf16[512,512]{1,0:T(8,128)(2,1)S(1)} fusion(%shard), kind=kCustom, calls=%part.2
  %scattered = f32[2,128]{1,0:T(2,128)S(1)} fusion(%sums), kind=kCustom, calls=%all-reduce-scatter.1
  %next = s32[]{:T(128)} add(%index, %two)
  ROOT %out = (s32[]{:T(128)}, bf16[128,512]{1,0:T(8,128)(2,1)}, f32[8,128]{1,0:T(8,128)S(1)}) tuple(%next, %shard, %sums)
}

%condition (state.2: (s32[], bf16[128,512], f32[8,128])) -> pred[] {
  %state.2 = (s32[]{:T(128)}, bf16[128,512]{1,0:T(8,128)(2,1)}, f32[8,128]{1,0:T(8,128)S(1)}) parameter(0)
  %bound = s32[]{:T(128)} constant(13)
  %index.2 = s32[]{:T(128)} get-tuple-element(%state.2), index=0
  ROOT %less = pred[]{:T(512)} compare(%index.2, %bound), direction=LT
}

ENTRY %main (x: bf16[128,512], y: f32[8,128]) -> bf16[128,512] {
  %x = bf16[128,512]{1,0:T(8,128)(2,1)} parameter(0)
  %y = f32[8,128]{1,0:T(8,128)S(1)} parameter(1)
  %three = s32[]{:T(128)} constant(3)
  %from = s32[]{:T(128)} copy(%three)
  %start = (s32[]{:T(128)}, bf16[128,512]{1,0:T(8,128)(2,1)}, f32[8,128]{1,0:T(8,128)S(1)}) tuple(%from, %x, %y)
  %loop = (s32[]{:T(128)}, bf16[128,512]{1,0:T(8,128)(2,1)}, f32[8,128]{1,0:T(8,128)S(1)}) while(%start), condition=%condition, body=%body
  ROOT %result = bf16[128,512]{1,0:T(8,128)(2,1)} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def looped_text():
    """One collective of every kind in each of TURNS turns of a loop, and an all-reduce of pairs
    after it, on 8 devices."""
    mesh = Mesh(np.asarray(jax.devices()).reshape(4, 2), ("a", "b"))

    def on_each(x):  # (8, 16) float32
        def turn(x, _):
            x = x + jnp.tanh(jax.lax.psum(x, ("a", "b")))
            gathered = jax.lax.all_gather(x, "a", tiled=True)  # (32, 16)
            x = jax.lax.psum_scatter(gathered + 1, "a", tiled=True)  # (8, 16)
            x = jax.lax.ppermute(x, "a", [(i, (i + 1) % 4) for i in range(4)]) * 2
            return jax.lax.all_to_all(x, "a", 0, 0, tiled=True) - 1, None

        return jax.lax.psum(jax.lax.scan(turn, x, None, length=TURNS)[0], "b")

    split = PartitionSpec(("a", "b"))
    mapped = jax.shard_map(on_each, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    x = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=NamedSharding(mesh, split))
    return jax.jit(mapped).lower(x).compile().as_text()


def test_collectives_in_a_loop_count_with_every_turn(looped_text):
    found = collectives(Program(looped_text), 8)
    size = 8 * 16 * 4
    assert {kind: each.count for kind, each in found.items()} == {
        "all-reduce": TURNS + 1, "all-gather": TURNS, "reduce-scatter": TURNS,
        "all-to-all": TURNS, "collective-permute": TURNS,
    }  # fmt: skip
    assert {kind: each.bytes for kind, each in found.items()} == {
        "all-reduce": (TURNS + 1) * size, "all-gather": TURNS * 4 * size,
        "reduce-scatter": TURNS * 4 * size, "all-to-all": TURNS * size,
        "collective-permute": TURNS * size,
    }  # fmt: skip
    assert {kind: each.sent for kind, each in found.items()} == {
        "all-reduce": TURNS * 2 * 7 / 8 * size + 2 * 1 / 2 * size,
        "all-gather": TURNS * 3 * size,
        "reduce-scatter": TURNS * 3 * size,
        "all-to-all": TURNS * 3 / 4 * size,
        "collective-permute": TURNS * size,
    }


def test_a_loop_of_unknown_length_is_reported(looped_text):
    text = re.sub(r'"known_trip_count":\{"n":"\d+"\}', "", looped_text).replace(
        "direction=LT", "direction=NE"
    )
    program = Program(text)
    assert collectives(program, 8)["all-gather"].count == 1
    assert len(program.unknown_loops) == 1


def test_turns_are_read_from_bounds_and_parts_of_a_collective_are_one():
    """From 3 in steps of 2 below 13: five turns."""
    program = Program(TPU_TEXT)
    assert [(each.name, times) for each, times in program.runs()] == [("main", 1), ("body", 5)]
    found = collectives(program, 4)
    assert set(found) == {"all-gather", "reduce-scatter"}
    assert (found["all-gather"].count, found["all-gather"].bytes) == (5, 5 * 512 * 512 * 2)
    assert (found["reduce-scatter"].count, found["reduce-scatter"].sent) == (5, 5 * 3 / 4 * 4096)
    assert not program.unknown_loops


def test_memory_inside_the_chip_is_no_traffic():
    """Both fusions read the shard, and one hands it on; the index is added to and copied."""
    shard, index = 128 * 512 * 2, 4
    assert bytes_moved(Program(TPU_TEXT)) == 5 * (3 * shard + 3 * index) + 2 * index


def test_arrays_are_padded_to_tiles():
    def stored(shape):
        line = f"ENTRY %m (x: f32[1]) -> f32[1] {{\n  ROOT %x = {shape} parameter(0)\n}}"
        return [array.bytes for array in Program(line).entry.root.arrays]

    assert stored("f32[3,5]{1,0}") == [60]
    assert stored("bf16[100,64]{1,0:T(8,128)(2,1)}") == [104 * 128 * 2]
    assert stored("bf16[64,100]{0,1:T(8,128)(2,1)}") == [104 * 128 * 2]
    assert stored("(pred[7]{0}, s32[]{:T(128)}, u8[2,2]{1,0})") == [7, 4, 4]


def test_traffic_of_a_program_without_loops_is_the_compilers():
    def f(x, w):
        return jax.nn.softmax(jnp.tanh(x @ w) @ w.T, axis=-1).sum(axis=0) * 2

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 32), (32, 128))]
    compiled = jax.jit(f).lower(*shapes).compile()
    theirs = compiled.cost_analysis()["bytes accessed"]
    assert bytes_moved(Program(compiled.as_text())) == pytest.approx(theirs, rel=0.05)


def test_a_scanned_layer_reads_its_slice_of_the_parameters():
    """Twice the layers, twice the traffic; not four times, as whole stacks would make it."""

    def moved(layers):
        def f(x, w):
            return jax.lax.scan(lambda x, layer: (jnp.tanh(x @ layer), None), x, w)[0]

        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((8, 64), (layers, 64, 64))]
        return bytes_moved(Program(jax.jit(f).lower(*shapes).compile().as_text()))

    assert moved(64) / moved(32) == pytest.approx(2, rel=0.05)
    assert moved(32) == pytest.approx(32 * 64 * 64 * 4 * 3, rel=0.6)


@pytest.mark.parametrize(
    ("attributes", "members"),
    [
        ("channel_id=1, replica_groups={{0,2},{1,3}}, to_apply=%add", [0, 2]),
        ("replica_groups={{0,1,2,3,4,5,6,7}}", [*range(8)]),
        ("replica_groups=[4,2]<=[8], dimensions={0}", [0, 1]),
        ("replica_groups=[4,2]<=[2,2,2]T(0,2,1), dimensions={0}", [0, 2]),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, x", [0, 2, 4, 6]),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=3] {'a','c'}", [*range(6)]),
        ("replica_groups=mesh['a'=2,'b'=3] {'b'}", [0, 1, 2]),
        ("replica_groups={}, to_apply=%add", [*range(16)]),
        ("to_apply=%add", [*range(16)]),
    ],
)
def test_first_group(attributes, members):
    assert first_group(attributes, 16) == members
