"""Accelerators that are not there: their compilers run on any Linux machine and need none."""

import importlib.metadata
import os
import re
from typing import Any

from flax_transformer.dry_run import gpu_topology, tpu_topology
from flax_transformer.dry_run.chips import CHIPS
from flax_transformer.errors import UserError

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # what computes; whatever accelerator is there stays free
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # no program is read back without its chip
    **tpu_topology.ENVIRONMENT,
}
"""Environment variables that jax and the compilers read when they are loaded."""


def prepare_environment() -> None:
    """Sets what jax and the compilers read when they are loaded; call it before that."""
    os.environ.update(ENVIRONMENT)


def topology_devices(name: str) -> list[Any]:
    """Returns the chips of a topology such as v5e:4x4 or h100:8, to compile for.

    Raises `UserError` where there is no such topology, and where its compiler is missing.
    """
    kind = name.partition(":")[0]
    if kind in gpu_topology.GPUS:
        return gpu_topology.topology_devices(name)
    if re.fullmatch(r"v\d+\w*", kind):
        return tpu_topology.topology_devices(name)
    raise UserError(
        f"--topology {name} names neither TPUs, as v5e:4x4 does, nor GPUs, as h100:8 does: "
        "--topology list names all"
    )


def describe_topologies() -> list[str]:
    """Describes what `topology_devices` takes, and for what of it a compiler is installed."""
    lines = [f"GPUs: {_installed(gpu_topology.plugin_package(), gpu_topology.INSTALL)}"]
    for kind, device_kind in gpu_topology.GPUS.items():
        chip = CHIPS[device_kind]
        sizes = ", ".join(f"{kind}:{size}" for size in gpu_topology.SIZES)
        lines.append(f"  {chip.name:<12}{sizes}")
    lines += [
        "  several hosts of eight by their number: h100:32x8",
        f"TPUs: {_installed(tpu_topology.compiler_package(), tpu_topology.INSTALL)}",
        f"  {tpu_topology.EXAMPLES}, and other slices that Google has",
    ]
    return lines


def _installed(package: str | None, remedy: str) -> str:
    if package is None:
        return f"the compiler is not installed: {remedy}"
    return f"compiled by {package} {importlib.metadata.version(package)}"
