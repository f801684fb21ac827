"""Where each attention looks: how evenly, and whether always at the same place.

Letters: b batch, t query position, s key position, h heads, l layers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.batch import Batch
from flax_transformer.models.attention import MultiHeadAttention, visible
from flax_transformer.models.layer_stack import MEASURED
from flax_transformer.models.recurrent.decoder import Decoder

CROSS = "cross-attention"
"""The name of the attention to the source, in every family of models."""

_NAMES = {
    ("encoder", "attention"): "encoder self-attention",
    ("decoder", "self_attention"): "decoder self-attention",
    ("decoder", "cross_attention"): CROSS,
    ("decoder",): CROSS,  # a recurrent one as a whole
}
"""By the place of the module in its model."""

_SOWN = "attention_statistics"


class AttentionStatistics(NamedTuple):
    """Means over the queries that see two positions or more; (h,) each, stacked (l,h)."""

    entropy: jax.Array
    """Entropy of the weights over log(number of visible positions): 1 looks evenly at all of them,
    0 at a single one."""
    first: jax.Array
    """Weight on the first visible position."""
    last: jax.Array
    """Weight on the last one: the source's end symbol, or under a causal mask the query itself."""


def attention_statistics(weights: jax.Array, mask: jax.Array) -> AttentionStatistics:
    """Of `weights` (b,h,t,s), which sum to one over s, under `mask` bool (b,t,s)."""
    count = mask.sum(axis=-1)
    several = (count > 1).astype(jnp.float32)
    queries = jnp.maximum(several.sum(), 1)
    entropy = jax.scipy.special.entr(weights).sum(axis=-1)
    most = jnp.log(jnp.maximum(count, 2).astype(jnp.float32))

    def mean(values: jax.Array) -> jax.Array:
        return jnp.einsum("bht,bt->h", values, several) / queries

    def weight_at(place: jax.Array) -> jax.Array:
        return mean(jnp.take_along_axis(weights, place[:, None, :, None], axis=-1)[..., 0])

    first, last = mask.argmax(axis=-1), mask.shape[-1] - 1 - mask[..., ::-1].argmax(axis=-1)
    return AttentionStatistics(mean(entropy / most[:, None]), weight_at(first), weight_at(last))


def measure_attention(model: nn.Module, params: Any, batch: Batch) -> dict[str, Any]:
    """`AttentionStatistics` (l,h) of each attention of `model`, by name, with the true target fed.

    A recurrent model has cross-attention at most, in one layer, and the mean of its heads for one.
    """
    with nn.intercept_methods(_measure):
        _, variables = model.apply({"params": params}, batch, mutable=[MEASURED])
    measured: Any = dict(variables).get(MEASURED, {})
    found = ((name, _at(measured, path)) for path, name in _NAMES.items())
    return {name: statistics for name, statistics in found if statistics is not None}


def _at(measured: dict, path: tuple[str, ...]) -> AttentionStatistics | None:
    for name in (*path, _SOWN):
        if name not in measured:
            return None
        measured = measured[name]
    (statistics,) = measured  # one for every call
    return statistics


def _measure(call, arguments, keywords, context: nn.module.InterceptorContext):
    """Beside every call of a module that attends, sows what its weights are like."""
    module, measure = context.module, _MEASURES.get(type(context.module))
    if measure and context.method_name == "__call__":
        module.sow(MEASURED, _SOWN, measure(module, *arguments))
    return call(*arguments, **keywords)


def _of_heads(
    attention: MultiHeadAttention, x, memory, segments, memory_segments
) -> AttentionStatistics:
    mask = visible(segments, memory_segments, attention.causal) & (segments > 0)[:, :, None]
    return attention_statistics(attention.weights(x, memory, mask), mask)


def _of_recurrent_decoder(
    decoder: Decoder, x, segments, memory, source_segments
) -> AttentionStatistics | None:
    if not decoder.config.attends_to_source:
        return None
    mask = visible(segments, source_segments, causal=False) & (segments > 0)[:, :, None]
    weights = decoder.position_by_position(x, segments, memory, mask).attention
    return jax.tree.map(
        lambda of_heads: of_heads[None],  # the only layer
        attention_statistics(jnp.einsum("tbhs->bhts", weights), mask),
    )


_MEASURES: dict[type, Callable[..., AttentionStatistics | None]] = {
    MultiHeadAttention: _of_heads,
    Decoder: _of_recurrent_decoder,
}
