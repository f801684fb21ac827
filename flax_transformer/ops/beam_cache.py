"""The cache of a decoder's self-attention: slots that are written once and never move.

Letters: b batch, w beam width, t target length, s source length or slots of the cache, h heads,
k head width.

At each step beam search replaces every hypothesis by one that some beam has lengthened. Moving keys
and values along would copy the whole cache per step. Here what beam j writes at position i stays in
its slot. Only a small table of ancestors moves, which says whose slots make a hypothesis:

    position          0         1         2            3 positions of w = 3 beams
    beam              0  1  2   0  1  2   0  1  2
    slot              0  1  2   3  4  5   6  7  8      position * w + beam
    key and value     A  B  C   D  E  F   G  H  I      (h,k) each

    ancestors         position 0  1  2                 hypothesis, that is visible slots
        of beam 0              1  1  0                 B E G   1 4 6
        of beam 1              1  0  1                 B D H   1 3 7
        of beam 2              2  2  2                 C F I   2 5 8

    keys (1,b,1,h,k,s)   values (1,b,1,h,s,k)   ancestors (1,b,w,t), EMPTY where nothing is written

Axis 1 of every leaf is the sentence and axis 2 the beam; all beams share a leaf whose axis 2 is 1.
Attention reads each key once for all beams, and a mask leaves each hypothesis its own slots.
"""

import chex
import jax
import jax.numpy as jnp

from flax_transformer.ops.einsum import einsum, einsum_reference
from flax_transformer.ops.rounding import times
from flax_transformer.parallel import collectives

EMPTY = -1


def empty_ancestors(b: int, w: int, t: int) -> jax.Array:
    """Returns ancestors (1,b,w,t) of hypotheses that are still empty, with room for t positions."""
    return jnp.full((1, b, w, t), EMPTY, jnp.int32)


def empty_slots(b: int, w: int, t: int, h: int, k: int, dtype) -> tuple[jax.Array, jax.Array]:
    """Returns keys (1,b,1,h,k,s) and values (1,b,1,h,s,k) with room for t positions of w beams.

    The last axis of each is one that its product does not sum, as matrix products want their right
    operand. With values laid out like keys, XLA's CPU backend took three times as long for the
    weighted sum.
    """
    return jnp.zeros((1, b, 1, h, k, t * w), dtype), jnp.zeros((1, b, 1, h, t * w, k), dtype)


def cache_dtype(compute_dtype: str) -> jnp.dtype:
    """Returns the type in which keys and values are kept."""
    # XLA's CPU backend has no bfloat16 product with a batch axis: it would convert the whole cache
    # to float32 at each step. The numbers are those of `compute_dtype` either way.
    return jnp.dtype(jnp.float32 if collectives.platform() == "cpu" else compute_dtype)


def source_slots(key: jax.Array, value: jax.Array, dtype) -> tuple[jax.Array, jax.Array]:
    """Returns keys (1,b,1,h,k,s) and values (1,b,1,h,s,k) of the source.

    key, value  (b,s,h,k)
    """
    key = jnp.einsum("bshk->bhks", key)[None, :, None].astype(dtype)
    return key, jnp.einsum("bshk->bhsk", value)[None, :, None].astype(dtype)


def write(
    keys: jax.Array, values: jax.Array, key: jax.Array, value: jax.Array, position: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns `keys` and `values` with what all beams write at `position` in its slots.

    key, value  (b,w,h,k)
    """
    place = position * key.shape[1]
    key = jnp.einsum("bwhk->bhkw", key)[None, :, None].astype(keys.dtype)
    value = jnp.einsum("bwhk->bhwk", value)[None, :, None].astype(values.dtype)
    return (
        jax.lax.dynamic_update_slice_in_dim(keys, key, place, axis=5),
        jax.lax.dynamic_update_slice_in_dim(values, value, place, axis=4),
    )


def mark_own(ancestors: jax.Array, position: jax.Array) -> jax.Array:
    """Returns `ancestors` where each beam's hypothesis has the beam's own slot at `position`."""
    _, b, w, _ = ancestors.shape
    own = jnp.broadcast_to(jnp.arange(w, dtype=jnp.int32)[None, None, :, None], (1, b, w, 1))
    return jax.lax.dynamic_update_slice_in_dim(ancestors, own, position, axis=3)


def visible_slots(ancestors: jax.Array) -> jax.Array:
    """Returns which slots make each hypothesis: bool (b,w,s)."""
    _, b, w, t = ancestors.shape
    beams = jnp.arange(w, dtype=jnp.int32)[None, None, None, :]
    return (ancestors[0, :, :, :, None] == beams).reshape(b, w, t * w)


def grow_ancestors(ancestors: jax.Array, t: int) -> jax.Array:
    """Returns `ancestors` with room for `t` positions."""
    return _grow(ancestors, t, axis=3, fill=EMPTY)


def grow_slots(keys: jax.Array, values: jax.Array, slots: int) -> tuple[jax.Array, jax.Array]:
    """Returns `keys` and `values` with room for `slots` slots."""
    return _grow(keys, slots, axis=5), _grow(values, slots, axis=4)


def _grow(array: jax.Array, size: int, axis: int, fill: int = 0) -> jax.Array:
    """Returns `array` with length `size` along `axis`, the new elements after the old ones."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return jnp.pad(array, widths, constant_values=fill)


def attend_to_prefix_reference(
    query: jax.Array, keys: jax.Array, values: jax.Array, ancestors: jax.Array
) -> jax.Array:
    """Computes `attend_to_prefix` in plain lines."""
    w, t = ancestors.shape[2:]
    slots = ancestors[0] + w * jnp.arange(t)[None, None]  # bwt
    key = jax.vmap(lambda keys, slots: keys[:, :, slots])(keys[0, :, 0], slots)  # bhkwt
    value = jax.vmap(lambda values, slots: values[:, slots])(values[0, :, 0], slots)  # bhwtk
    query = times(query, query.shape[3] ** -0.5)
    scores = einsum_reference("bwhk,bhkwt->bhwt", query, key, key.dtype, jnp.float32)
    weights = _softmax(scores, ancestors[0] != EMPTY)
    heads = einsum_reference("bhwt,bhwtk->bwhk", weights, value, value.dtype)
    return heads.astype(query.dtype)


def attend_to_prefix(
    query: jax.Array, keys: jax.Array, values: jax.Array, ancestors: jax.Array
) -> jax.Array:
    """Attends from one position of every beam to the hypothesis that leads to it.

    Replaces (`attend_to_prefix_reference`):

        scores = einsum("bwhk,bwthk->bhwt", query, key) / sqrt(k)
        weights = softmax(where(ancestors != EMPTY, scores, -inf))
        einsum("bhwt,bwthk->bwhk", weights, value)

    whose key and value (b,w,t,h,k) the reference gathers from the slots of each hypothesis'
    `ancestors`. Here no such arrays are made.

    query      (b,w,h,k)
    keys       (1,b,1,h,k,s)
    values     (1,b,1,h,s,k)
    ancestors  (1,b,w,t)
    result     (b,w,h,k)
    """
    return _attend(query, keys, values, visible_slots(ancestors))[0]


def attend_to_source_reference(
    query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Computes `attend_to_source` in plain lines."""
    key, value = keys[0, :, 0], values[0, :, 0]
    query = times(query, query.shape[3] ** -0.5)
    scores = einsum_reference("bwhk,bhks->bhws", query, key, key.dtype, jnp.float32)
    weights = _softmax(scores, mask)
    heads = einsum_reference("bhws,bhsk->bwhk", weights, value, value.dtype)
    return heads.astype(query.dtype), weights


def attend_to_source(
    query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Attends from one position of every beam to the source, which all beams share.

    Replaces (`attend_to_source_reference`):

        scores = einsum("bwhk,bhks->bhws", query, keys) / sqrt(k)
        weights = softmax(where(mask, scores, -inf))
        einsum("bhws,bhsk->bwhk", weights, values), weights

    query    (b,w,h,k)
    keys     (1,b,1,h,k,s)
    values   (1,b,1,h,s,k)
    mask     bool (b,w,s)
    results  heads (b,w,h,k), and weights (b,h,w,s) in float32
    """
    return _attend(query, keys, values, mask)


def _attend(query, keys, values, mask) -> tuple[jax.Array, jax.Array]:
    """Returns heads and weights, over slots; products are taken in the type of the cache.

    The beams of a sentence share one matrix product over its keys and one over its values. The last
    axis of either array is one that its product does not sum, as XLA's CPU backend wants it. Keys
    are ten times as fast as in the layout (b,s,h,k), with 300 slots, and values two to three times
    as fast as in (b,h,k,s), with 128.
    """
    key, value = keys[0, :, 0], values[0, :, 0]
    dims = chex.Dimensions(
        b=query.shape[0], w=query.shape[1], h=query.shape[2], k=query.shape[3], s=key.shape[3]
    )
    chex.assert_shape(query, dims["bwhk"])
    chex.assert_shape(key, dims["bhks"])
    chex.assert_shape(value, dims["bhsk"])
    chex.assert_shape(mask, dims["bws"])
    query = times(query, dims.k**-0.5)
    weights = _softmax(einsum("bwhk,bhks->bhws", query, key, key.dtype, jnp.float32), mask)
    # Not bwhk at once, for which XLA's CPU backend would transpose both operands.
    heads = einsum("bhws,bhsk->bhwk", weights, value, value.dtype)
    return jnp.einsum("bhwk->bwhk", heads).astype(query.dtype), weights


def _softmax(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the softmax over the last axis of `scores` (b,h,w,s) where `mask` (b,w,s) is true."""
    scores = jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores, axis=-1)
