"""A bias at every position, and the sum over positions that is its gradient.

Letters: b batch, t position, d width, of one axis or more.
"""

import functools

import jax
import jax.numpy as jnp

from flax_transformer.parallel import collectives

_STAGE = 32


def add_bias_reference(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Computes `add_bias` in its plain line."""
    return x + bias.astype(x.dtype)[None, None]


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds `bias` (d,) to every position of `x` (b,t,d), in the type of `x`.

    Replaces (`add_bias_reference`):

        x + bias.astype(x.dtype)[None, None]

    The gradient of that line XLA's CPU backend would sum column by column (`sum_over_positions`).
    """
    return x + _spread(bias.astype(x.dtype), *x.shape[:2])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _spread(vector: jax.Array, b: int, t: int) -> jax.Array:
    """Repeats `vector` (d,) as (b,t,d)."""
    return jnp.broadcast_to(vector, (b, t, *vector.shape))


_spread.defvjp(
    lambda vector, b, t: (_spread(vector, b, t), None),
    lambda b, t, _, gradient: (sum_over_positions(gradient).astype(gradient.dtype),),
)


def sum_over_positions(x: jax.Array) -> jax.Array:
    """Returns the sum (d,) of `x` (b,t,d), in float32.

    Sums in stages: XLA's CPU backend takes a sum over thousands of rows column by column through
    memory, which took a quarter of a training step.
    """
    b, t, *width = x.shape
    rows = x.astype(jnp.float32).reshape(b * t, -1)
    while collectives.platform() == "cpu" and len(rows) > _STAGE and len(rows) % _STAGE == 0:
        rows = rows.reshape(-1, _STAGE, rows.shape[1]).sum(axis=1)
    return rows.sum(axis=0).reshape(width)
