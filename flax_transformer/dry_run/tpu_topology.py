"""TPU chips that are not there: the TPU compiler runs on any Linux machine and needs none."""

import importlib.util
from typing import Any

from flax_transformer.errors import UserError

EXAMPLES = "v5e:1x1, v5e:2x2, v5e:4x4, v5e:16x16, v5p:2x2x1, v5p:4x4x4, v6e:2x2, v6e:16x16"

ENVIRONMENT = {
    # The library looks for the chips of this machine, which takes long where there are none.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    # A training on this machine may hold the library, which the compiler alone can share.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""Environment variables that the TPU compiler reads when it is loaded."""


INSTALL = "pip install '.[tpu]' (Linux; no TPU is needed)"


def compiler_package() -> str | None:
    """Returns the package of the TPU compiler, None where it is missing."""
    return "libtpu" if importlib.util.find_spec("libtpu") else None


def require_compiler() -> None:
    """Raises `UserError` where the TPU compiler is missing."""
    if compiler_package() is None:
        raise UserError(
            f"the TPU compiler, which TPUs as a topology need, is not installed: {INSTALL}"
        )


def topology_devices(name: str) -> list[Any]:
    """Returns the chips of a topology such as v5e:4x4, to compile for.

    Raises `UserError` where the TPU compiler is missing or does not know the topology.
    """
    require_compiler()
    import jax
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--topology {name} is refused by the TPU compiler ({reason}); examples: {EXAMPLES}"
        ) from None
    devices: list[Any] = list(found.devices)
    if len({tuple(device.coords) for device in devices}) < len(devices):
        raise UserError(
            f"--topology {name}: without a chip the compiler splits each of these in two, as "
            f"training on them does not; examples: {EXAMPLES}"
        )
    return devices
