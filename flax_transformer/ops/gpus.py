"""What the GPUs of this process are able to do."""

from collections.abc import Callable

import jax

Capability = tuple[int, ...]
"""NVIDIA's compute capability, such as (9, 0) for an H100."""


def all_are(able: Callable[[Capability], bool]) -> bool:
    """Returns whether every GPU of this process is NVIDIA's and `able`.

    True where there is none, as when a program is compiled for a GPU that is only described.
    """
    if jax.default_backend() != "gpu":
        return True
    return all(_is_nvidia(gpu) and able(_capability(gpu)) for gpu in jax.local_devices())


def _is_nvidia(gpu: jax.Device) -> bool:
    return "cuda" in gpu.client.platform_version.lower()


def _capability(gpu: jax.Device) -> Capability:
    return tuple(map(int, gpu.compute_capability.split(".")))


def run_kernels(capability: Capability) -> bool:
    """Returns whether there are kernels in bfloat16 for such a GPU: Ampere and newer."""
    return capability >= (8, 0)


def have_large_shared_memory(capability: Capability) -> bool:
    """Returns whether a block has at least 163 KiB.

    A100, H100, H200, B200 and B300 have that; others have 99.
    Source: CUDA C++ programming guide, "Technical specifications per compute capability".
    """
    return capability in ((8, 0), (9, 0), (10, 0), (10, 3))
