"""Functions that are compiled ahead of their first call."""

import time
from typing import Any

from flax_transformer.runtime.interruption import Interruption


class Program:
    """A jitted function for arguments of one shape; the run can be stopped while it is compiled.

    compilations: how often it has been compiled
    seconds:      how long that took, tracing included
    """

    def __init__(self, jitted: Any):
        self._jitted = jitted
        self._compiled: Any = None
        self.compilations = 0
        self.seconds = 0.0

    def compile(self, interruption: Interruption, *arguments: Any) -> None:
        """Makes the function ready for `arguments`, if it is not yet.

        Raises `InterruptedRunError` when asked to stop meanwhile.
        """
        if self._compiled is None:
            start = time.perf_counter()
            self._compiled = interruption.run(self._jitted.lower(*arguments).compile)
            self.compilations += 1
            self.seconds = time.perf_counter() - start

    def __call__(self, *arguments: Any) -> Any:
        """Returns the result for arguments like those of `compile`; a `TypeError` for others."""
        return self._compiled(*arguments)
