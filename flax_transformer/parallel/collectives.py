"""Functions that work on each device's own shard of an array, and reductions over devices.

They refer to the mesh in which a function is traced (see `sharding.on_mesh`).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec


def platform() -> str:
    """Returns what the function being traced will run on: cpu, gpu or tpu."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.platform
    return "gpu" if name in ("cuda", "rocm") else name


def _free_axes() -> dict[str, int]:
    """Returns sizes of the current mesh's axes along which XLA still decides what lies where."""
    mesh = jax.sharding.get_abstract_mesh()
    manual = jax.sharding.AxisType.Manual
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name: mesh.shape[name] for name, kind in types if kind != manual}


def _free_parts(spec: PartitionSpec) -> list[tuple[str, ...]]:
    """Returns for each entry of `spec` those of its axes that are still free."""
    free = _free_axes()
    parts = [(part,) if isinstance(part, str) else part or () for part in spec]
    return [tuple(axis for axis in part if axis in free) for part in parts]


def local_shard(x: jax.Array, spec: PartitionSpec) -> jax.ShapeDtypeStruct | None:
    """Returns shape and type of each device's shard of `x` inside `local_shard_map`.

    None where the devices do not divide `x`: `local_shard_map` refuses that.
    """
    sizes, shape = _free_axes(), list(x.shape)
    for axis, names in enumerate(_free_parts(spec)):
        devices = math.prod(sizes[name] for name in names)
        if shape[axis] % devices:
            return None
        shape[axis] //= devices
    return jax.ShapeDtypeStruct(tuple(shape), x.dtype)


def local_shard_map(function: Callable, in_specs: Any, out_specs: Any) -> Callable:
    """Maps `function` over the devices: each calls it on its own shards of the arguments.

    The specs describe the shards in AXES. Kernels need this, since XLA cannot split them. Returns
    `function` itself outside of any mesh, and where each device has its own shards along every axis
    already.
    """
    free = _free_axes()
    if not free:
        return function

    def keep_free(spec: PartitionSpec) -> PartitionSpec:
        return PartitionSpec(*[part or None for part in _free_parts(spec)])

    specs = jax.tree.map(
        keep_free, (in_specs, out_specs), is_leaf=lambda x: isinstance(x, PartitionSpec)
    )
    # No check: it asks over which axes results differ, and kernels do not say that.
    return jax.shard_map(
        function, in_specs=specs[0], out_specs=specs[1], axis_names=set(free), check_vma=False
    )


def _shared(axes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns those of `axes` along which the current mesh has several devices."""
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    return tuple(axis for axis in axes if sizes.get(axis, 1) > 1)


def sum_over(axes: tuple[str, ...], x: jax.Array) -> jax.Array:
    """Returns the sum of `x` over the devices along `axes`, inside `local_shard_map`."""
    return jax.lax.psum(x, shared) if (shared := _shared(axes)) else x


def maximum_over(axes: tuple[str, ...], x: jax.Array) -> jax.Array:
    """Returns the largest `x` of the devices along `axes`, inside `local_shard_map`."""
    return jax.lax.pmax(x, shared) if (shared := _shared(axes)) else x


def index_along(axis: str) -> jax.Array | int:
    """Returns this device's index along `axis`, inside `local_shard_map`."""
    return jax.lax.axis_index(axis) if _shared((axis,)) else 0
