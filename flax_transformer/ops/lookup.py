"""Rows of an embedding's table."""

import jax

from flax_transformer.parallel.sharding import all_gather_fsdp


def lookup_reference(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Computes `lookup` in its plain line."""
    return table[ids]


def lookup(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Looks up the rows (...,d) of `table` (v,d) that `ids` (...) name.

    Replaces (`lookup_reference`):

        table[ids]

    On several devices, each of which holds a shard of the table, they gather the whole table rather
    than the rows.
    """
    return all_gather_fsdp(table, "vd")[ids]
