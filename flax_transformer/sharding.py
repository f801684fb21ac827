"""Where arrays live: one mesh of devices, and one table from logical axes to mesh axes."""

import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_transformer.config import Config, ConfigError, MeshConfig

AXES = ("data", "fsdp", "model")

BATCH_AXES = ("data", "fsdp")
"""Mesh axes over which the rows of a batch are split."""

# Every letter that names a parameter's axis. `fsdp` splits each parameter once, along d.
_MESH_AXIS = {
    "l": None,  # layers, scanned over
    "d": "fsdp",  # model width
    "h": "model",  # heads
    "k": None,  # width of a head
    "f": "model",  # feed-forward width
    "v": "model",  # vocabulary
    "p": None,  # learned positions
    "g": None,  # gates of a recurrent cell
    "u": None,  # units of a recurrent layer: every step would wait for the other devices
    "n": None,  # vectors beside each other
}


def build_mesh(config: MeshConfig, devices=None) -> Mesh:
    """All `devices` (by default every device of every process) as a mesh of AXES.

    Raises `ConfigError` when the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.model]
    if -1 in sizes:
        sizes[sizes.index(-1)] = len(devices) // -math.prod(sizes) or -1
    if math.prod(sizes) != len(devices):
        raise ConfigError(
            f"mesh.data {config.data} x mesh.fsdp {config.fsdp} x mesh.model {config.model} do not "
            f"make the {len(devices)} devices that there are"
        )
    return Mesh(np.asarray(devices).reshape(sizes), AXES)


def named_sharding(mesh: Mesh, names: tuple, shape: tuple[int, ...]) -> NamedSharding:
    """How an array of `shape` whose axes have the logical `names` lies on `mesh`.

    An unknown name is a `KeyError`; an axis that does not divide is a `ConfigError`.
    """
    axes = [None if name is None else _MESH_AXIS[name] for name in names]
    for name, axis, size in zip(names, axes, shape, strict=False):
        if axis is not None and size % mesh.shape[axis]:
            raise ConfigError(
                f"mesh.{axis} is {mesh.shape[axis]}, which does not divide axis {name} of a "
                f"parameter of shape {shape}"
            )
    return NamedSharding(mesh, PartitionSpec(*axes))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `BATCH_AXES`, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_rows(config: Config, mesh: Mesh) -> None:
    """Raises `ConfigError` unless every device gets the same number of rows at every step."""
    devices = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    parts = devices * config.training.accumulation_steps
    if config.batch.rows % parts:
        raise ConfigError(
            f"batch.rows is {config.batch.rows}, but must be a multiple of {parts}: "
            f"{devices} devices along {' and '.join(BATCH_AXES)} times "
            f"training.accumulation_steps {config.training.accumulation_steps}"
        )
