"""Which source tokens a model looks at while it writes a given translation.

Letters: b batch, w beam width (both one here), s source length, t target length.
"""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.config import Config
from flax_transformer.models import build_model
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, Tokenizer


class Alignment(NamedTuple):
    """A sentence pair in pieces, end symbols included, and the attention between them."""

    source: list[str]
    target: list[str]
    weights: np.ndarray
    """(t,s): where the model looks when it writes target piece t; each row sums to one."""


def align(config: Config, params: Any, tokenizer: Tokenizer, source: str, target: str) -> Alignment:
    """The attention over `source` while the decoder is made to write `target` (the soft alignment
    of Bahdanau et al. 2015, section 5.2.1).

    params: of the model, unboxed. What attention it is of several heads and layers, the model's
    `decode_step_with_attention` says. Raises `ConfigError` for a model without attention.
    """
    source_ids, target_ids = ([*ids, EOS_ID] for ids in tokenizer.encode([source, target]))
    inputs = jnp.asarray([BOS_ID, *target_ids[:-1]], jnp.int32)
    attend = jax.jit(partial(forced_attention, config))
    weights = attend(params, jnp.asarray(source_ids, jnp.int32), inputs)
    return Alignment(tokenizer.pieces(source_ids), tokenizer.pieces(target_ids), np.array(weights))


def forced_attention(
    config: Config, params: Any, source_ids: jax.Array, inputs: jax.Array
) -> jax.Array:
    """Attention (t,s) of the decoder that is fed `inputs` (t,), of the source `source_ids` (s,).

    By the steps of the search, since the full pass of a fused kernel never has the weights.
    """
    chex.assert_rank([source_ids, inputs], 1)
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    apply = partial(model.apply, {"params": params})
    ids, positions = source_ids[None], jnp.arange(len(source_ids), dtype=jnp.int32)[None]
    segments = jnp.ones_like(ids)
    memory = apply(ids, segments, positions, method="encode")
    cache = apply(memory, segments, len(inputs), 1, method="start_cache")

    def write(cache, column):
        token, position = column
        step: Any = apply(token[None, None], position, cache, method="decode_step_with_attention")
        _, cache, attention = step
        return cache, attention[0, 0]

    columns = (inputs, jnp.arange(len(inputs), dtype=jnp.int32))
    return jax.lax.scan(write, cache, columns)[1]
