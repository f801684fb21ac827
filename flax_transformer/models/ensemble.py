"""Several models as one: the mean of their probabilities, token by token.

Letters: b batch, w beam width, t target, s source, d width, v vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Ensemble:
    """Models of one vocabulary that answer the questions of a `Family` together.

    It is used as a module is: `ensemble.apply({"params": params}, ..., method="encode")`, where
    `params` are a tuple of those of each model, and so are other collections, the memories, the
    features and the caches. The models may be of different families and sizes.

    Probabilities are averaged, not their logarithms: a token that one model finds likely stays
    likely, as where one of them knows a word that the others do not.
    """

    def __init__(self, models: Sequence[nn.Module]):
        self.models = tuple(models)

    def apply(self, variables: Mapping[str, Any], *arguments: Any, method: str = "__call__") -> Any:
        """Returns what `method` gives of all models; logits (...,v) are log probabilities."""
        collections = zip(*variables.values(), strict=True)
        of_models = [dict(zip(variables, own, strict=True)) for own in collections]

        def each(*of_model: Sequence[Any], shared: Sequence[Any] = ()) -> tuple:
            columns = zip(self.models, of_models, *of_model, strict=True)
            return tuple(
                model.apply(own, *first, *shared, method=method) for model, own, *first in columns
            )

        match method, arguments:
            case (("__call__" | "encode" | "step_weights"), shared):
                return each(shared=shared)
            case (("start_cache" | "grow_cache"), (of_model, *shared)):
                return each(of_model, shared=shared)
            case "logits", (features,):
                return mean_of_probabilities(each(features))
            case (("decode_step" | "decode_step_with_attention"), (ids, position, caches)):
                count = len(self.models)
                found = each([ids] * count, [position] * count, caches)
                logits, caches, *attention = zip(*found, strict=True)
                means = [sum(weights) / count for weights in attention]
                return mean_of_probabilities(logits), caches, *means
        raise AttributeError(f"an ensemble has no method {method!r}")


def mean_of_probabilities(logits: Sequence[jax.Array]) -> jax.Array:
    """Returns the logarithm (...,v) of the mean of the probabilities that `logits` (...,v) give."""
    log_probabilities = jnp.stack([jax.nn.log_softmax(each) for each in logits])
    return jax.nn.logsumexp(log_probabilities, axis=0) - jnp.log(float(len(logits)))
