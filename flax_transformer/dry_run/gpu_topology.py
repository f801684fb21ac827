"""NVIDIA GPUs that are not there: XLA's plugin for them compiles from a description of one.

The plugin has such descriptions in its own library, as text: XLA's `gpu_specs`
(github.com/openxla/xla, xla/backends/gpu/target_config/specs). jax has no function that returns
them, so they are read out of the file.
"""

import importlib.metadata
import importlib.util
import mmap
import re
from pathlib import Path
from typing import Any

from flax_transformer.errors import UserError

GPUS = {
    "a100": "NVIDIA A100-SXM4-80GB",
    "h100": "NVIDIA H100 80GB HBM3",
    "h200": "NVIDIA H200 141GB HBM3e",
    "b200": "NVIDIA B200",
}
"""The kinds that a topology can name, and what their descriptions are called."""

SIZES = ("1", "2", "4", "8", "2x8")
"""GPUs of one host; or hosts of eight, of which there may be more."""

INSTALL = "pip install '.[cuda13]' (Linux; no GPU is needed)"
_PLUGINS = {
    "jax_plugins.xla_cuda13": "jax-cuda13-pjrt",
    "jax_plugins.xla_cuda12": "jax-cuda12-pjrt",
}
_LONGEST = 2**16  # bytes of a description; they have less than a tenth of it


def topology_devices(name: str) -> list[Any]:
    """Returns the GPUs of a topology such as h100:8 or h100:2x8, to compile for.

    Raises `UserError` for other numbers, and where XLA's plugin is missing, has no description of
    the GPU or refuses it.
    """
    hosts, gpus = host_sizes(name)
    description = _description(GPUS[name.partition(":")[0]])
    import jax
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(
            platform="cuda", topology=f"1x{hosts}x{gpus}", target_config=description
        )
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--topology {name} is refused by XLA's CUDA plugin ({reason}): update jax, {INSTALL}"
        ) from None
    return list(found.devices)


def host_sizes(name: str) -> tuple[int, int]:
    """Returns the number of hosts and of GPUs in each that a topology such as h100:2x8 has.

    Raises `UserError` for numbers that machines with these GPUs do not have.
    """
    found = re.fullmatch(r"\w+:(?:(\d+)x)?(\d+)", name)
    hosts, gpus = (int(found[1] or 1), int(found[2])) if found else (0, 0)
    if hosts < 1 or gpus not in (1, 2, 4, 8) or (found and found[1] and gpus != 8):
        kind = name.partition(":")[0]
        raise UserError(
            f"--topology {name}: one host has 1, 2, 4 or 8 of these GPUs, as in {kind}:8, and "
            f"several hosts have 8 each, as in {kind}:2x8"
        )
    return hosts, gpus


def plugin_package() -> str | None:
    """Returns the package of XLA's CUDA plugin, None where there is none."""
    plugin = _plugin()
    return plugin and _PLUGINS[plugin[0]]


def _plugin() -> tuple[str, Path] | None:
    """Returns the module of XLA's CUDA plugin and its library."""
    for module in _PLUGINS:
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # no plugin at all
            continue
        if spec and spec.origin:
            library = Path(spec.origin).with_name("xla_cuda_plugin.so")
            if library.is_file():
                return module, library
    return None


def _description(device_kind: str) -> str:
    """Returns XLA's description of a GPU: the text of a message `GpuTargetConfigProto`."""
    plugin = _plugin()
    if plugin is None:
        raise UserError(
            f"XLA's CUDA plugin, which GPUs as a topology need, is not installed: {INSTALL}"
        )
    with (
        plugin[1].open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library,
    ):
        last = f'\ndevice_description_str: "{device_kind}"\n'.encode()
        end = library.find(last)
        begin = library.rfind(b"gpu_device_info {", max(0, end - _LONGEST), end)
        if -1 in (begin, end):
            package = _PLUGINS[plugin[0]]
            raise UserError(
                f"{package} {importlib.metadata.version(package)} has no description of an "
                f"{device_kind}: take jax 0.12 or newer, {INSTALL}"
            )
        return library[begin : end + len(last)].decode()
