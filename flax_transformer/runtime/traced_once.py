"""Functions that take long to trace and are asked for their shapes as well as for their results."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import jaxpr_as_fun

from flax_transformer.config import Config


class TracedOnce:
    """A function of a config and a random key; JAX traces it once for each config.

    It is traced on no mesh, whoever asks first, since what is kept is for all of them.
    """

    def __init__(self, function: Callable[[Config, jax.Array], Any]):
        functools.update_wrapper(self, function)
        self.function = function
        self._traced = functools.cache(self._trace)

    def __call__(self, config: Config, key: jax.Array) -> Any:
        traced = self._traced(config)
        leaves = jaxpr_as_fun(traced.jaxpr)(key)
        return jax.tree.unflatten(jax.tree.structure(traced.out_info), leaves)

    def shapes(self, config: Config) -> Any:
        """Returns what the function does, as descriptions in place of arrays; computes nothing."""
        return self._traced(config).out_info

    def _trace(self, config: Config) -> jax.stages.Traced:
        with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
            traced = jax.jit(functools.partial(self.function, config))
            return traced.trace(jax.eval_shape(jax.random.key, 0))
