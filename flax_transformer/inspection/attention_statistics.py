"""Where each attention looks: how evenly, and whether always at the same place.

Letters: b batch, t query position, s key position, h heads, l layers.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.data.packing import Batch
from flax_transformer.models.attention import MultiHeadAttention, visible
from flax_transformer.models.layer_stack import MEASURED
from flax_transformer.models.recurrent.seq2seq import Seq2Seq

_NAMES = {
    ("encoder", "attention"): "encoder self-attention",
    ("decoder", "self_attention"): "decoder self-attention",
    ("decoder", "cross_attention"): "cross-attention",
}

CROSS = _NAMES["decoder", "cross_attention"]
"""The name of the attention to the source, in both families of models."""


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
    if isinstance(model, Seq2Seq):
        if model.config.attention == "none":
            return {}
        found = model.apply({"params": params}, batch, method=_recurrent_attention)
        return {CROSS: jax.tree.map(lambda x: x[None], found)}
    with nn.intercept_methods(_measure_heads):
        _, variables = model.apply({"params": params}, batch, mutable=[MEASURED])
    sown: Any = variables
    # What is sown at every call comes as a tuple; here there is one call.
    return {
        name: sown[MEASURED][side][module]["attention"][0]
        for (side, module), name in _NAMES.items()
    }


def _measure_heads(call, arguments, keywords, context: nn.module.InterceptorContext):
    """Beside every call of a `MultiHeadAttention`, sows what its weights are like."""
    attention = context.module
    if isinstance(attention, MultiHeadAttention) and context.method_name == "__call__":
        x, memory, segments, memory_segments = arguments
        mask = visible(segments, memory_segments, attention.causal) & (segments > 0)[:, :, None]
        weights = attention.weights(x, memory, mask)
        attention.sow(MEASURED, "attention", attention_statistics(weights, mask))
    return call(*arguments, **keywords)


def _recurrent_attention(model: Seq2Seq, batch: Batch) -> AttentionStatistics:
    memory = model.encode(batch.source_ids, batch.source_segments, batch.source_positions)
    mask = visible(batch.target_segments, batch.source_segments, causal=False)
    mask &= (batch.target_segments > 0)[:, :, None]
    x = model.embedding(batch.target_inputs.T)
    outputs = model.decoder.position_by_position(x, batch.target_segments, memory, mask)
    return attention_statistics(jnp.einsum("tbhs->bhts", outputs.attention), mask)
