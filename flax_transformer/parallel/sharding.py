"""Where arrays live: one mesh of devices, and one table from logical axes to mesh axes."""

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_transformer.config import MeshConfig
from flax_transformer.errors import UserError

Result = TypeVar("Result")

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
    """Returns all `devices` (by default every device of every process) as a mesh of AXES.

    Raises `UserError` when the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.model]
    if -1 in sizes:
        sizes[sizes.index(-1)] = len(devices) // -math.prod(sizes) or -1
    if math.prod(sizes) != len(devices):
        raise UserError(
            f"mesh.data {config.data} x mesh.fsdp {config.fsdp} x mesh.model {config.model} is not "
            f"the number of devices, {len(devices)}"
        )
    return Mesh(np.asarray(devices).reshape(sizes), AXES)


def named_sharding(mesh: Mesh, names: tuple, shape: tuple[int, ...]) -> NamedSharding:
    """Returns how an array of `shape` whose axes have the logical `names` lies on `mesh`.

    Raises `KeyError` for an unknown name, and `UserError` for a size that `mesh` does not divide.
    """
    axes = [None if name is None else _MESH_AXIS[name] for name in names]
    for name, axis, size in zip(names, axes, shape, strict=False):
        if axis is not None and size % mesh.shape[axis]:
            raise UserError(
                f"mesh.{axis} is {mesh.shape[axis]}, which does not divide axis {name} of a "
                f"parameter of shape {shape}"
            )
    return NamedSharding(mesh, PartitionSpec(*axes))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: rows over `BATCH_AXES`, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def on_mesh(mesh: Mesh, function: Callable[..., Result]) -> Callable[..., Result]:
    """Returns `function`, to be jitted, such that what it calls knows the mesh it runs on."""

    @functools.wraps(function)
    def traced(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


def constrain_rows(x: jax.Array) -> jax.Array:
    """Constrains `x` (b,...), and so its gradient, to rows over `BATCH_AXES` and the rest whole.

    Without it XLA would rather split activations along d, as parameters are over fsdp, and
    exchange activations in place of parameters. Outside `on_mesh`, and where every device
    computes for its own rows already, it returns `x` as it is.
    """
    return _constrain(x, PartitionSpec(BATCH_AXES))


def all_gather_fsdp(parameter: jax.Array, names: str) -> jax.Array:
    """Gathers `parameter`, whose axes are `names`, along fsdp.

    For where XLA does not see that this is cheaper than to split what is computed from it.
    """
    axes = [_MESH_AXIS[name] for name in names]
    return _constrain(
        parameter, PartitionSpec(*(None if axis == "fsdp" else axis for axis in axes))
    )


def _constrain(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(BATCH_AXES) <= set(mesh.auto_axes):
        return x
    return jax.lax.with_sharding_constraint(x, spec)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that lies whole on every device."""
    return NamedSharding(mesh, PartitionSpec())
