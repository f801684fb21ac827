"""cuDNN's plans for attention, made where there is no GPU.

XLA asks cuDNN for the plan of a call: which kernel, and how large a workspace. Without a GPU it
does so only if told. cuDNN then needs libcuda.so.1, the library of NVIDIA's driver, and must be of
a version that XLA knows.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from flax_transformer.ops import attention_cudnn

CALL = "__cudnn$fmha"
"""What calls to cuDNN's attention are named in a lowered program, among other words."""

_OPTIONS: dict[str, Any] = {
    "xla_gpu_cudnn_deviceless_compilation_mode": "CUDNN_DEVICELESS_COMPILATION_AUTO",
}


def planning_options(device: Any, lowered: str) -> tuple[dict[str, Any], str]:
    """Returns XLA's options to plan a lowered program's attention, and what hinders it.

    No options where something does, where `device` is there, and where cuDNN is not called.
    """
    if device.platform != "gpu" or jax.default_backend() == "gpu" or CALL not in lowered:
        return {}, ""
    hindrance = _hindrance(device)
    return ({} if hindrance else _OPTIONS), hindrance


@functools.cache
def _hindrance(device: Any) -> str:
    """Returns why cuDNN cannot plan for `device`, tried with an attention as any GPU takes it."""
    sharding = jax.sharding.SingleDeviceSharding(device)
    heads = jax.ShapeDtypeStruct((2, 128, 2, 64), jnp.bfloat16, sharding=sharding)
    mask = jax.ShapeDtypeStruct((2, 128, 128), jnp.bool, sharding=sharding)
    try:
        lowered = jax.jit(attention_cudnn.cudnn_attention).lower(heads, heads, heads, mask)
        lowered.compile(_OPTIONS)
    except jax.errors.JaxRuntimeError as error:
        return _reason(str(error))
    return ""


def _reason(message: str) -> str:
    """Returns what a person can put right, as far as XLA's message tells."""
    if "libcuda" in message or "SUBLIBRARY_LOADING_FAILED" in message:
        return "it finds no libcuda.so.1, the library of NVIDIA's driver"
    if "No such compile option" in message:
        return "this version of XLA asks it only where there is a GPU"
    return message.splitlines()[0]
