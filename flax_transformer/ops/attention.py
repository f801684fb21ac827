"""Attention over packed rows: the formula, or the chip's kernel for it where it has one.

Letters: b batch, t query position, s key position, h heads, k width of a head.
To compute attention another way, add a function of `Formula` and the arrays, like those here.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from flax_transformer.ops import attention_cudnn
from flax_transformer.parallel import collectives, sharding

Formula = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""Equation 1: (query (b,t,h,k), key (b,s,h,k), value (b,s,h,k), mask (b,t,s)) -> (b,t,h,k)."""

_HEADS = PartitionSpec(sharding.BATCH_AXES, None, ("model",))  # (b,t,h,k) and (b,s,h,k)
_ROWS = PartitionSpec(sharding.BATCH_AXES)  # (b,t) and (b,s)


def attention_reference(
    formula: Formula,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    query_segments: jax.Array,
    key_segments: jax.Array,
    causal: bool,
) -> jax.Array:
    """Computes `attention` in its plain line."""
    return formula(query, key, value, visible(query_segments, key_segments, causal))


def attention(
    formula: Formula,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    query_segments: jax.Array,
    key_segments: jax.Array,
    causal: bool,
) -> jax.Array:
    """Computes equation 1; a position sees those of its own segment, and if `causal` none later.

    Replaces (`attention_reference`):

        formula(query, key, value, visible(query_segments, key_segments, causal))

    formula         equation 1, as `models.transformer.scaled_dot_product_attention` computes it
    query           (b,t,h,k)
    key, value      (b,s,h,k)
    query_segments  (b,t)
    key_segments    (b,s)
    result          (b,t,h,k)

    On an accelerator a fused kernel computes this and never stores the scores: ours, or where it
    does not take these shapes, cuDNN's. `formula` does where there is none. A mask is made only
    where `formula` or cuDNN needs one.
    """
    segments = (query_segments, key_segments)
    if (kernel := _kernel(query, key)) is not None:
        run = collectives.local_shard_map(
            functools.partial(kernel, causal=causal), (_HEADS, _HEADS, _HEADS, _ROWS, _ROWS), _HEADS
        )
        return run(query, key, value, *segments)
    mask = visible(*segments, causal)
    if collectives.platform() == "gpu" and attention_cudnn.fits(query, key):
        return attention_cudnn.cudnn_attention(query, key, value, mask)
    return formula(query, key, value, mask)


def visible(query_segments: jax.Array, key_segments: jax.Array, causal: bool) -> jax.Array:
    """Returns whether t may see s, bool (b,t,s), for segments (b,t) and (b,s)."""
    same = query_segments[:, :, None] == key_segments[:, None, :]
    return same & jnp.tril(jnp.ones(same.shape[1:], bool))[None] if causal else same


def _kernel(query: jax.Array, key: jax.Array) -> Callable[..., jax.Array] | None:
    """Returns the platform's kernel, if it takes what each device has of queries and keys."""
    platform = collectives.platform()
    if platform not in ("gpu", "tpu"):
        return None
    from flax_transformer.ops import attention_gpu, attention_tpu  # Pallas takes long to load

    own_query, own_key = (collectives.local_shard(x, _HEADS) for x in (query, key))
    if own_query is None or own_key is None:
        return None
    if platform == "gpu":
        fitting = attention_gpu.fits(own_query, own_key)
        return attention_gpu.gpu_attention if fitting else None
    return attention_tpu.tpu_attention if attention_tpu.fits(own_query, own_key) else None
