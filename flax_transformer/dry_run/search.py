"""Beam search, compiled from descriptions alone: what one position moves, and the least it could.

Letters: b batch, w beam width, s source length, t target length.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from flax_transformer.config import Config
from flax_transformer.decoding.lengths import longest_source, longest_target
from flax_transformer.decoding.loop import stages
from flax_transformer.dry_run.chips import Chip
from flax_transformer.dry_run.flops import step_numbers
from flax_transformer.dry_run.memory_traffic import movements
from flax_transformer.dry_run.program_text import Computation, Program
from flax_transformer.models import build_model
from flax_transformer.models.initialization import abstract_params
from flax_transformer.ops.compute_dtype import decoding_config
from flax_transformer.parallel.sharding import AXES, build_mesh, on_mesh
from flax_transformer.translation.batching import most_rows
from flax_transformer.translation.search import jit_search, search

SOURCE_LENGTH = 32
"""Source slots of each sentence, where positions reach so far: 25 words have about as many."""


@dataclass(frozen=True)
class Position:
    """One turn of the search's loop: every beam of every sentence gets one more token."""

    room: int
    """Positions that the cache has room for, all of which a turn reads."""
    bytes_moved: int
    """To and from a chip's memory."""
    weights: int
    """Bytes of the matrices that a position multiplies."""
    cache: int
    """Bytes of keys, values and the like."""
    kernels: int
    """Instructions that touch memory: on a GPU each is started by itself."""
    operations: float
    """FLOP of the products with weights."""

    @property
    def floor(self) -> int:
        """The least bytes: weights and cache once."""
        return self.weights + self.cache


@dataclass(frozen=True)
class Search:
    """A beam search, compiled for a mesh."""

    config: Config
    mesh: jax.sharding.Mesh
    rows: int
    """b, sentences on each chip."""
    source_length: int
    """s, slots of each."""
    positions: list[Position]
    """One for each room that a cache has in turn."""

    def seconds(self, position: Position, chip: Chip) -> float:
        """Returns the least time of a position: that of memory or products at their peak."""
        products = position.operations / chip.flops
        return max(position.bytes_moved / chip.memory_bandwidth, products)


def compile_search(config: Config, devices: Any = None) -> Search:
    """Compiles for `devices`, by default those at hand; nothing is computed on them.

    Raises `UserError` where the mesh does not fit the devices.
    """
    mesh = build_mesh(config.mesh, devices)
    config = decoding_config(config, mesh.devices.flat[0])
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    params = abstract_params(config, mesh)
    length = min(SOURCE_LENGTH, longest_source(config))
    rows = most_rows(config, length, mesh.size)
    sharding = NamedSharding(mesh, PartitionSpec(AXES))
    ids = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=sharding)
    jitted = jit_search(partial(search, model, config), mesh)
    program = Program(jitted.lower(params, (ids,)).compile().as_text())
    rows //= mesh.size
    max_steps = longest_target(config, length)
    rooms, bodies = stages(max_steps), _bodies(program, config, rows, max_steps)
    numbers, beams = step_numbers(params), rows * config.decoding.beam_size
    weights = numbers * jnp.dtype(config.model.compute_dtype).itemsize
    positions = []
    for room, body in zip(rooms, bodies, strict=True):
        moved = list(movements(program, body))
        cache = on_mesh(mesh, partial(_cache_bytes, model, config))(params, (rows, length), room)
        total = sum(size for _, size in moved)
        operations = 2.0 * numbers * beams
        positions.append(Position(room, total, weights, cache, len(moved), operations))
    return Search(config, mesh, rows, length, positions)


def _bodies(program: Program, config: Config, rows: int, max_steps: int) -> list[Computation]:
    """Returns the bodies of the loops that search with all rows, the one with least room first.

    There are other loops: those in which the last few sentences go on, and what XLA makes loops of.
    """
    beams = config.decoding.beam_size
    carried = (f"s32[{rows},{beams}]", f"s32[{rows},{beams},{max_steps}]")  # last ids, all ids
    return [
        program.computations[each.called("body")[0]]
        for computation, _ in program.runs()
        for each in computation.instructions.values()
        if each.opcode == "while" and all(array in each.shape for array in carried)
    ]


def _cache_bytes(model: Any, config: Config, params: Any, shape: tuple, room: int) -> int:
    def start(params: Any, ids: jax.Array) -> Any:
        apply, segments = partial(model.apply, {"params": params}), jnp.ones_like(ids)
        memory = apply(ids, segments, segments, method="encode")
        return apply(memory, segments, room, config.decoding.beam_size, method="start_cache")

    ids = jax.ShapeDtypeStruct(shape, jnp.int32)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    cache = jax.eval_shape(start, params, ids)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))
