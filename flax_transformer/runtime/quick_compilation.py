"""XLA's options for programs that run but briefly, as in tests and documentation.

XLA compiles them in a half to a quarter of the time, and they run slower. The options stand in the
environment before jax is loaded, so nothing here needs it. An option that XLA does not know ends
the process.
"""

import importlib.metadata

HAS_OLDER_EMITTERS = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11)
"""Whether there are emitters beside the newer ones, which take long: jaxlib 0.11 dropped them."""

OPTIMISED: dict[str, int | bool] = {"xla_backend_optimization_level": 1} | (
    {"xla_cpu_use_fusion_emitters": True} if HAS_OLDER_EMITTERS else {}
)
"""What `compile` of a lowered function is given where the flags stand in the environment, but this
program is to be compiled well."""

QUICK_FLAGS = "--xla_backend_optimization_level=0" + (
    " --xla_cpu_use_fusion_emitters=false" if HAS_OLDER_EMITTERS else ""
)
"""For XLA_FLAGS."""
