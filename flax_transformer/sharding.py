"""Where arrays live: one mesh of devices, and one table from logical axes to mesh axes."""

import functools
import math
from collections.abc import Callable
from typing import Any

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


def on_mesh(mesh: Mesh, function: Callable) -> Callable:
    """`function`, to be jitted, whose inner parts may ask for the mesh that they run on."""

    @functools.wraps(function)
    def on_this_mesh(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return on_this_mesh


def platform() -> str:
    """cpu, gpu or tpu: what the function being traced will run on."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.platform
    return "gpu" if name in ("cuda", "rocm") else name


def _free_axes() -> tuple[str, ...]:
    """Axes of the current mesh along which XLA still decides what lies where."""
    mesh = jax.sharding.get_abstract_mesh()
    manual = jax.sharding.AxisType.Manual
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in types if kind != manual)


def per_device(function: Callable, in_specs: Any, out_specs: Any) -> Callable:
    """`function` on each device's own parts of its arguments, which the specs describe in AXES.

    Kernels need it, since XLA cannot split them. Outside of any mesh it is `function` itself.
    """
    free = _free_axes()
    if not free:
        return function

    def keep_free(spec: PartitionSpec) -> PartitionSpec:
        parts = [(part,) if isinstance(part, str) else part or () for part in spec]
        kept = [tuple(axis for axis in part if axis in free) for part in parts]
        return PartitionSpec(*[part or None for part in kept])

    specs = jax.tree.map(
        keep_free, (in_specs, out_specs), is_leaf=lambda x: isinstance(x, PartitionSpec)
    )
    # Kernels do not say over which axes their results differ, as the check would ask.
    return jax.shard_map(
        function, in_specs=specs[0], out_specs=specs[1], axis_names=set(free), check_vma=False
    )


def _bound(axes: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `axes` that a function inside `per_device` can speak over."""
    return tuple(axis for axis in axes if axis in jax.sharding.get_abstract_mesh().axis_names)


def sum_over(axes: tuple[str, ...], x: jax.Array) -> jax.Array:
    """The sum of `x` over the devices along `axes`, inside `per_device`."""
    return jax.lax.psum(x, axes) if _bound(axes) else x


def maximum_over(axes: tuple[str, ...], x: jax.Array) -> jax.Array:
    """The largest `x` of the devices along `axes`, inside `per_device`."""
    return jax.lax.pmax(x, axes) if _bound(axes) else x


def index_along(axis: str) -> jax.Array | int:
    """This device's place along `axis`, inside `per_device`."""
    return jax.lax.axis_index(axis) if _bound((axis,)) else 0
