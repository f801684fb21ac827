"""The cache of a decoder's self-attention: slots that are written once and never move.

Letters: b batch, w beam width, t target length, h heads, k width of a head, s slots.

At each step beam search replaces every hypothesis by one that some beam has lengthened. Moving the
keys and values along would copy the whole cache at each step. Here the column that beam j writes at
position i stays in slot i w + j, of w t slots that all beams of a sentence share, and a small table
says whose slots a hypothesis is made of: `ancestors` (1,b,w,t) int32, the beam at each position, or
NOBODY. The search moves the table only; attention reads each key once for all beams, and a mask
leaves each hypothesis its own.
"""

import jax
import jax.numpy as jnp

NOBODY = -1


def empty_ancestors(b: int, w: int, t: int) -> jax.Array:
    """Of hypotheses without a position, with room for t: (1,b,w,t)."""
    return jnp.full((1, b, w, t), NOBODY, jnp.int32)


def empty_slots(b: int, w: int, t: int, h: int, k: int, dtype) -> jax.Array:
    """Room for t positions of w beams: (1,b,1,h,k,s), of which all beams share the third axis."""
    return jnp.zeros((1, b, 1, h, k, t * w), dtype)


def cache_dtype(compute_dtype: str) -> jnp.dtype:
    """Type in which keys and values are kept."""
    # XLA's CPU backend has no bfloat16 product with a batch axis: it would turn the whole cache
    # into float32 at each step. The numbers are those of `compute_dtype` either way.
    return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else compute_dtype)


def write_column(slots: jax.Array, column: jax.Array, position: jax.Array) -> jax.Array:
    """`slots` with the `column` (b,w,h,k) of all beams at `position`."""
    w = column.shape[1]
    column = jnp.einsum("bwhk->bhkw", column)[None, :, None].astype(slots.dtype)
    return jax.lax.dynamic_update_slice_in_dim(slots, column, position * w, axis=5)


def stand_at(ancestors: jax.Array, position: jax.Array) -> jax.Array:
    """`ancestors` when each beam's hypothesis takes the slot of that beam at `position`."""
    _, b, w, _ = ancestors.shape
    own = jnp.broadcast_to(jnp.arange(w, dtype=jnp.int32)[None, None, :, None], (1, b, w, 1))
    return jax.lax.dynamic_update_slice_in_dim(ancestors, own, position, axis=3)


def visible_slots(ancestors: jax.Array) -> jax.Array:
    """The slots of each hypothesis: bool (b,w,s)."""
    _, b, w, t = ancestors.shape
    beams = jnp.arange(w, dtype=jnp.int32)[None, None, None, :]
    return (ancestors[0, :, :, :, None] == beams).reshape(b, w, t * w)


def grow(values: jax.Array, size: int, fill: int = 0) -> jax.Array:
    """`values` with a last axis of `size`, the new places behind the old ones."""
    widths = [(0, 0)] * (values.ndim - 1) + [(0, size - values.shape[-1])]
    return jnp.pad(values, widths, constant_values=fill)
