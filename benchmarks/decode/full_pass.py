"""A decoder without a cache: for each token the full forward pass over the whole prefix.

It searches as the cached one does, by the same `beam_search`. The prefix grows in the same stages
as a cache does, and the encoder runs once.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.text.tokenizer import PAD_ID

Cache = dict[str, jax.Array]


def start(memory: jax.Array, segments: jax.Array, max_steps: int, beam_size: int) -> Cache:
    """Returns what a step needs: the source, and the target so far (1,b,w,t)."""
    prefix = jnp.full((1, len(memory), beam_size, max_steps), PAD_ID, jnp.int32)
    return {"memory": memory[None, :, None], "segments": segments[None, :, None], "prefix": prefix}


def grow(cache: Cache, max_steps: int) -> Cache:
    more = max_steps - cache["prefix"].shape[3]
    widths = ((0, 0), (0, 0), (0, 0), (0, more))
    return cache | {"prefix": jnp.pad(cache["prefix"], widths, constant_values=PAD_ID)}


def step(
    model: nn.Module, params: Any, ids: jax.Array, position: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
    """As the model's `decode_step`; every beam is a row of its own."""
    prefix = jax.lax.dynamic_update_index_in_dim(cache["prefix"], ids[None], position, axis=3)
    _, b, w, t = prefix.shape
    rows = prefix.reshape(b * w, t)
    memory, segments = (jnp.repeat(cache[name][0, :, 0], w, 0) for name in ("memory", "segments"))
    positions = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32)[None], (b * w, t))
    variables = {"params": params}
    features = model.apply(
        variables, rows, jnp.ones_like(rows), positions, memory, segments, method="decode"
    )
    # Of its logits the last position's alone: a fair opponent does not throw the others away.
    last = jax.lax.dynamic_index_in_dim(features, position, axis=1).reshape(b, w, -1)
    return model.apply(variables, last, method="logits"), cache | {"prefix": prefix}
