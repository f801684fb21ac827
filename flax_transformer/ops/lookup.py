"""Rows of an embedding's table."""

import jax

from flax_transformer.parallel.sharding import all_gather_fsdp


def lookup_reference(table: jax.Array, ids: jax.Array) -> jax.Array:
    """The plain line of `lookup`."""
    return table[ids]


def lookup(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Looks up the rows (...,d) of `table` (v,d) that `ids` (...) name.

    Replaces (`lookup_reference`):

        table[ids]

    On several devices they exchange the table, of which each holds a part, rather than its rows.
    """
    return all_gather_fsdp(table, "vd")[ids]
