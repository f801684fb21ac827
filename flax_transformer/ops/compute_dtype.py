"""The type of matrix products: bfloat16 where the hardware multiplies it, else float32."""

import dataclasses
import os
import platform
import re
from pathlib import Path
from typing import Literal

import jax

from flax_transformer.config import Config, RecurrentConfig, TransformerConfig

Model = TransformerConfig | RecurrentConfig

_CPU_INFO = Path("/proc/cpuinfo")
_WITH_BFLOAT16 = {"amx_bf16", "avx512_bf16"}
"""As Linux names the instructions."""

_LEVELS_WITH_BFLOAT16 = {"AVX512_BF16", "AMX", "AMX_FP16"}
"""Values of --xla_cpu_max_isa, which keeps XLA from instructions beyond a level."""

_FIRST_GPU_WITH_BFLOAT16 = 8.0  # NVIDIA's compute capability of Ampere


def settle_compute_dtype(config: Config, device: jax.Device) -> Config:
    """Returns `config` with "auto" in model.compute_dtype replaced by the type for `device`."""
    return dataclasses.replace(config, model=settle_model_dtype(config.model, device))


def settle_model_dtype(model: Model, device: jax.Device) -> Model:
    """Does what `settle_compute_dtype` does for the settings of a model alone."""
    if model.compute_dtype != "auto":
        return model
    if multiplies_bfloat16(device):
        return dataclasses.replace(model, compute_dtype="bfloat16")
    return dataclasses.replace(model, compute_dtype="float32")


def decoding_config(config: Config, device: jax.Device) -> Config:
    """Returns `config`, settled, for translation on `device` by a model trained there or elsewhere.

    The type is float32 where bfloat16 is only emulated, which takes longer.
    """
    config = settle_compute_dtype(config, device)
    return config if multiplies_bfloat16(device) else with_compute_dtype(config, "float32")


def with_compute_dtype(config: Config, dtype: Literal["float32", "bfloat16"]) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, compute_dtype=dtype))


def multiplies_bfloat16(device: jax.Device) -> bool:
    """Returns whether matrix products of bfloat16 are faster on `device` than those of float32."""
    if device.platform != "cpu":
        # "8.0" of NVIDIA's; AMD's have names such as gfx90a, TPUs none.
        capability = getattr(device, "compute_capability", "")
        is_number = re.fullmatch(r"\d+\.\d+", str(capability))
        return not is_number or float(capability) >= _FIRST_GPU_WITH_BFLOAT16
    level = re.search(r"--xla_cpu_max_isa=(\w+)", os.environ.get("XLA_FLAGS", ""))
    if level and level[1].upper() not in _LEVELS_WITH_BFLOAT16:
        return False
    return not _WITH_BFLOAT16.isdisjoint(_instructions())


def _instructions() -> set[str]:
    """Returns the names of what the processor can do.

    Empty where it does not tell: only Linux on x86 does.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return set()
    try:
        flags = re.search(r"^flags\s*:(.*)$", _CPU_INFO.read_text(), re.MULTILINE)
    except OSError:
        return set()
    return set(flags[1].split()) if flags else set()
