"""Where each attention looks: how evenly, and whether always at the same place.

Letters: b batch, t query position, s key position, h heads, l layers.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.batch import Batch
from flax_transformer.models.attention_weights import look_at_attention
from flax_transformer.ops.attention import visible

CROSS = "cross-attention"
"""The name of the attention to the source, in every family of models."""

_NAMES = {
    "encoder": "encoder self-attention",
    "decoder": "decoder self-attention",
    "cross": CROSS,
}


class AttentionStatistics(NamedTuple):
    """Means over the queries that see two positions or more; (h,) each, stacked (l,h)."""

    entropy: jax.Array
    """Entropy of the weights divided by log(number of visible positions): 1 looks evenly at all of
    them, 0 at a single one."""
    first: jax.Array
    """Weight on the first visible position."""
    last: jax.Array
    """Weight on the last one: the source's end symbol, or under a causal mask the query itself."""


def attention_statistics(weights: jax.Array, mask: jax.Array) -> AttentionStatistics:
    """Measures `weights` (b,h,t,s), which sum to one over s, under `mask` (b,t,s) bool."""
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
    """Returns the `AttentionStatistics` (l,h) of each attention of `model`, by name.

    The decoder is fed the true target. A recurrent model has cross-attention at most, in one layer.
    """
    source, target = batch.source_segments, batch.target_segments
    masks = {
        "encoder": visible(source, source, causal=False) & (source > 0)[:, :, None],
        "decoder": visible(target, target, causal=True) & (target > 0)[:, :, None],
        "cross": visible(target, source, causal=False) & (target > 0)[:, :, None],
    }

    def look(name: str, weights: jax.Array) -> AttentionStatistics:
        return attention_statistics(weights, masks[name])

    found = look_at_attention(model, params, batch, look)
    return {_NAMES[name]: statistics for name, statistics in found.items()}
