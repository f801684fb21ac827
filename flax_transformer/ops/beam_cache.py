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


def empty_slots(b: int, w: int, t: int, h: int, k: int, dtype) -> tuple[jax.Array, jax.Array]:
    """Room for t positions of w beams, of which all beams share the third axis: keys (1,b,1,h,k,s)
    and values (1,b,1,h,s,k).

    Either has last what its product does not sum, as matrix products want their right operand:
    with values like keys, XLA's CPU backend took three times as long for the weighted sum.
    """
    return jnp.zeros((1, b, 1, h, k, t * w), dtype), jnp.zeros((1, b, 1, h, t * w, k), dtype)


def cache_dtype(compute_dtype: str) -> jnp.dtype:
    """Type in which keys and values are kept."""
    # XLA's CPU backend has no bfloat16 product with a batch axis: it would turn the whole cache
    # into float32 at each step. The numbers are those of `compute_dtype` either way.
    return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else compute_dtype)


def write(
    keys: jax.Array, values: jax.Array, key: jax.Array, value: jax.Array, position: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Slots of `keys` and `values` with `key` and `value` (b,w,h,k) of all beams at `position`."""
    place = position * key.shape[1]
    key = jnp.einsum("bwhk->bhkw", key)[None, :, None].astype(keys.dtype)
    value = jnp.einsum("bwhk->bhwk", value)[None, :, None].astype(values.dtype)
    return (
        jax.lax.dynamic_update_slice_in_dim(keys, key, place, axis=5),
        jax.lax.dynamic_update_slice_in_dim(values, value, place, axis=4),
    )


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


def grow(array: jax.Array, size: int, axis: int = -1, fill: int = 0) -> jax.Array:
    """`array` with `size` places along `axis`, the new ones behind the old ones."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return jnp.pad(array, widths, constant_values=fill)
