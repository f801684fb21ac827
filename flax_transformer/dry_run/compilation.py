"""Compiling the training step from descriptions alone, and measuring the compiled program."""

import re
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.dry_run.collectives import Collectives, collectives
from flax_transformer.dry_run.cudnn import planning_options
from flax_transformer.dry_run.flops import ModelFlops, model_flops, traced_flops
from flax_transformer.dry_run.memory_traffic import bytes_moved
from flax_transformer.dry_run.model_parts import moved_by_part
from flax_transformer.dry_run.program_text import Program
from flax_transformer.errors import UserError
from flax_transformer.ops.compute_dtype import settle_compute_dtype
from flax_transformer.parallel.rows import check_rows
from flax_transformer.parallel.sharding import batch_sharding, build_mesh, replicated
from flax_transformer.training.state import abstract_state, count_parameters
from flax_transformer.training.step import jit_train_step

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Memory:
    """Bytes of a chip's memory that a step needs."""

    arguments: int
    """Parameters, optimizer state and batch."""
    temporaries: int
    outputs: int
    """Results that do not take the place of an argument."""
    code: int

    @property
    def total(self) -> int:
        return self.arguments + self.temporaries + self.outputs + self.code


@dataclass(frozen=True)
class TooLarge:
    """The compiler gave up: the program needs more memory than a chip has."""

    needed: int
    available: int


@dataclass(frozen=True)
class Step:
    """A training step, compiled for a mesh. What is said of a chip holds for each."""

    config: Config
    mesh: jax.sharding.Mesh
    parameters: int
    state_bytes: int
    """Parameters and optimizer state on a chip."""
    model_flops: ModelFlops
    traced_flops: float
    """Over all chips, as `flops.traced_flops`."""
    memory: Memory | TooLarge
    compiler_flops: float = 0.0
    """On a chip, as the compiler sums them, the body of a loop once; 0 where it does not, as for a
    GPU that is not there."""
    compiler_bytes: float = 0.0
    """Likewise the bytes moved."""
    unplanned: str = ""
    """Why cuDNN has made no plans of its calls; empty where it has, or is not called."""
    bytes_moved: int = 0
    """To and from a chip's memory, loops with all their turns."""
    moved_by_part: dict[str, int] = field(default_factory=dict)
    """The same by part of the model."""
    collectives: dict[str, Collectives] = field(default_factory=dict)
    unknown_loops: int = 0
    """Loops whose number of turns is not in the program."""

    @property
    def target_tokens(self) -> int:
        """Target positions in a step over all chips."""
        return self.config.batch.rows * self.config.batch.target_length


def abstract_arguments(config: Config, mesh: jax.sharding.Mesh) -> tuple[Any, Batch, Any]:
    """Returns descriptions of `train_step`'s state, batch and key.

    Shapes, types and shardings are those of training.
    """

    def rows(name: str) -> jax.ShapeDtypeStruct:
        batch = config.batch
        length = batch.source_length if name.startswith("source") else batch.target_length
        shape = (batch.rows, length)
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=batch_sharding(mesh))

    key = jax.eval_shape(lambda: jax.random.key(0))
    return (
        abstract_state(config, mesh),
        Batch(*map(rows, Batch._fields)),
        jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh)),
    )


def compile_step(config: Config, devices: Any = None) -> Step:
    """Compiles for `devices`, by default those at hand; nothing is computed on them.

    Raises `UserError` where the mesh or the rows do not fit the devices, and where a program is
    too large but the compiler does not say in numbers how large.
    """
    mesh = build_mesh(config.mesh, devices)
    config = settle_compute_dtype(config, mesh.devices.flat[0])
    check_rows(config, mesh)
    state, batch, key = abstract_arguments(config, mesh)
    traced = jit_train_step(config, mesh, state).trace(state, batch, key)
    known: dict[str, Any] = {
        "config": config,
        "mesh": mesh,
        "parameters": count_parameters(state.params),
        "state_bytes": sum(map(_bytes_on_a_chip, jax.tree.leaves(state))),
        "model_flops": model_flops(config, state.params),
        "traced_flops": traced_flops(traced.jaxpr),
    }
    lowered = traced.lower()
    options, unplanned = planning_options(mesh.devices.flat[0], lowered.as_text())
    try:
        compiled = lowered.compile(options)
    except jax.errors.JaxRuntimeError as error:
        return Step(**known, memory=_read_too_large(error, known["state_bytes"]))
    program, costs = Program(compiled.as_text()), compiled.cost_analysis() or {}
    return Step(
        **known,
        memory=_memory(compiled.memory_analysis()),
        compiler_flops=costs.get("flops", 0.0),
        compiler_bytes=costs.get("bytes accessed", 0.0),
        unplanned=unplanned,
        bytes_moved=bytes_moved(program),
        moved_by_part=moved_by_part(program),
        collectives=collectives(program, mesh.size, joined_devices(mesh)),
        unknown_loops=len(program.unknown_loops),
    )


def joined_devices(mesh: jax.sharding.Mesh) -> int:
    """Returns how many devices links join: all TPUs of a slice, but only the GPUs of one host."""
    first = mesh.devices.flat[0]
    if first.platform != "gpu":
        return mesh.size
    return sum(device.process_index == first.process_index for device in mesh.devices.flat)


def _bytes_on_a_chip(leaf: jax.ShapeDtypeStruct) -> int:
    shape = leaf.sharding.shard_shape(leaf.shape)
    return jax.ShapeDtypeStruct(shape, leaf.dtype).size * leaf.dtype.itemsize


def _memory(statistics: Any) -> Memory:
    return Memory(
        arguments=statistics.argument_size_in_bytes,
        temporaries=statistics.temp_size_in_bytes,
        outputs=statistics.output_size_in_bytes - statistics.alias_size_in_bytes,
        code=statistics.generated_code_size_in_bytes,
    )


def _read_too_large(error: jax.errors.JaxRuntimeError, state_bytes: int) -> TooLarge:
    """Reads the message of a compiler that found no room for a program's temporaries.

    The room needed is theirs and `state_bytes`. Any other error is raised.
    """
    message = str(error)
    if "RESOURCE_EXHAUSTED" not in message:
        raise error
    found = re.search(
        r"temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", message
    )
    if found is None:
        raise UserError(f"the training step does not fit: {message.splitlines()[0]}") from error
    temporaries, unit, available, other = found.groups()
    return TooLarge(
        needed=int(float(temporaries) * _UNITS[unit]) + state_bytes,
        available=int(float(available) * _UNITS[other]),
    )
