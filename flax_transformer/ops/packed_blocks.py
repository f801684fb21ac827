"""Which blocks of packed rows attention has to compute, and which of them without a mask.

Letters: b batch; a block has t queries or s keys.
"""

import jax
import jax.numpy as jnp


def keys_to_meet(
    query_segments: jax.Array, key_segments: jax.Array, causal: bool, t: int, s: int
) -> jax.Array:
    """Returns which blocks of keys each block of queries meets, int32 (4,b,blocks): the first, and
    the one after the last; the same of a run of blocks of which each query sees each key."""
    return _places(*_meet(query_segments, key_segments, causal, t, s))


def queries_to_meet(
    query_segments: jax.Array, key_segments: jax.Array, causal: bool, t: int, s: int
) -> jax.Array:
    """Returns the same of the blocks of queries that each block of keys meets."""
    meet = _meet(query_segments, key_segments, causal, t, s)
    return _places(*(x.swapaxes(1, 2) for x in meet))


def _meet(
    query_segments: jax.Array, key_segments: jax.Array, causal: bool, t: int, s: int
) -> tuple[jax.Array, jax.Array]:
    """Returns which blocks of queries and of keys meet, and in which each query sees each key,
    bool (b,blocks,blocks).

    Blocks in which none of its sentences stands are left out at both ends. Sentences follow each
    other, so between the ends there is hardly another.
    """
    queries, keys = (
        # Padding, 0, stands at the end of a row, so that here it is the largest.
        (segments.astype(jnp.uint32) - 1).reshape(len(segments), -1, size)
        for segments, size in ((query_segments, t), (key_segments, s))
    )
    first_query, last_query = queries.min(axis=2)[:, :, None], queries.max(axis=2)[:, :, None]
    first_key, last_key = keys.min(axis=2)[:, None], keys.max(axis=2)[:, None]
    meet = (first_query <= last_key) & (last_query >= first_key)
    whole = (first_query == last_key) & (last_query == first_key)  # so all four are the same
    if causal:
        query, key = (jnp.arange(meet.shape[1]) * t)[:, None], (jnp.arange(meet.shape[2]) * s)[None]
        meet &= (query + t - 1 >= key)[None]
        whole &= (query >= key + s - 1)[None]
    return meet, whole


def _places(meet: jax.Array, whole: jax.Array) -> jax.Array:
    """Returns of each row of `meet` (b,blocks,others) the first true place and that after the last,
    and of `whole` both ends of the first run of true places; 0 and 0 where there is none."""
    count = meet.shape[2]
    last = count - jnp.argmax(meet[:, :, ::-1], axis=2)
    begin = jnp.argmax(whole, axis=2)
    ended = ~whole & (jnp.arange(count)[None, None] > begin[:, :, None])
    end = jnp.where(ended.any(axis=2), jnp.argmax(ended, axis=2), count)
    return jnp.stack(
        [
            jnp.argmax(meet, axis=2),
            jnp.where(meet.any(axis=2), last, 0),
            begin,
            jnp.where(whole.any(axis=2), end, 0),
        ]
    ).astype(jnp.int32)
