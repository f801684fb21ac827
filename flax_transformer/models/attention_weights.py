"""Where a model looks: the weights of all its attentions, read at their taps.

Letters: l layers, b batch, h heads, t target position, s source position.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.models import build_model
from flax_transformer.models.tap import Tap
from flax_transformer.ops.layer_stack import TAPPED

_NAMES = {
    ("encoder", "attention"): "encoder",
    ("decoder", "self_attention"): "decoder",
    ("decoder", "cross_attention"): "cross",
    ("decoder",): "cross",  # of a recurrent model, in which it belongs to no layer
}
"""By the place in the model of the module whose tap it is."""

_SEEN = "seen"


def attention_weights(config: Config, params: Any, batch: Batch) -> dict[str, jax.Array]:
    """The weights of every layer and head for a packed batch, with the true target fed.

    encoder  (l,b,h,s,s), self-attention
    decoder  (l,b,h,t,t), self-attention, of which none looks at what comes later
    cross    (l,b,h,t,s), from the target to the source

    All are float32 and sum to one over the last axis. A recurrent model has "cross" at most, in one
    layer, and in one head unless its attention is multi_head.
    """
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    return look_at_attention(model, params, batch, lambda _, weights: weights)


def look_at_attention(
    model: nn.Module, params: Any, batch: Batch, look: Callable[[str, jax.Array], Any]
) -> dict[str, Any]:
    """What `look` makes of the weights of each attention, stacked over layers, by name.

    It is called with the name and the weights of one layer, as `attention_weights` describes them,
    so that those of all layers never need to be in memory together.
    """
    config: Any = dataclasses.replace(model.config, kernels="reference")  # type: ignore[attr-defined]

    def read(call, arguments, keywords, context: nn.module.InterceptorContext):
        tap = context.module
        if isinstance(tap, Tap) and context.method_name == "__call__":
            tap.sow(TAPPED, _SEEN, look(_NAMES[tap.path[:-1]], *arguments))
        return call(*arguments, **keywords)

    with nn.intercept_methods(read):
        _, variables = model.clone(config=config).apply(
            {"params": params}, batch, mutable=[TAPPED, "losses"]
        )
    seen: Any = dict(variables).get(TAPPED, {})
    return {name: found for path in _NAMES for name, found in _at(seen, path)}


def _at(seen: dict, path: tuple[str, ...]) -> list[tuple[str, Any]]:
    """The name and what was seen at the tap of the module at `path`, if there is one."""
    for part in (*path, "tap", _SEEN):
        if part not in seen:
            return []
        seen = seen[part]
    (found,) = seen  # one for every call
    if len(path) == 1:  # outside of any stack of layers
        found = jax.tree.map(lambda array: array[None], found)
    return [(_NAMES[path], found)]
