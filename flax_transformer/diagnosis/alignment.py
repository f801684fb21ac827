"""Which source tokens a model looks at while it writes a given translation.

Letters: s source length, t target length.
"""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.errors import UserError
from flax_transformer.models.attention_weights import attention_weights
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, Tokenizer


class Alignment(NamedTuple):
    """A sentence pair in pieces, end symbols included, and the attention between them."""

    source: list[str]
    target: list[str]
    weights: np.ndarray
    """(t,s): where the model looks when it writes target piece t; each row sums to one."""


def align(config: Config, params: Any, tokenizer: Tokenizer, source: str, target: str) -> Alignment:
    """Returns the attention over `source` while the decoder is made to write `target`.

    params: of the model, unboxed

    It is the soft alignment of Bahdanau et al. 2015, section 5.2.1: of several layers that of the
    last, the one nearest to the token chosen, and of several heads the mean. Raises `UserError` for
    a model without attention.
    """
    source_ids = [*tokenizer.encode([source])[0], EOS_ID]
    target_ids = [*tokenizer.target.encode([target])[0], EOS_ID]
    inputs = jnp.asarray([BOS_ID, *target_ids[:-1]], jnp.int32)
    attend = jax.jit(partial(forced_attention, config))
    weights = attend(params, jnp.asarray(source_ids, jnp.int32), inputs)
    return Alignment(
        tokenizer.pieces(source_ids), tokenizer.target.pieces(target_ids), np.array(weights)
    )


def forced_attention(
    config: Config, params: Any, source_ids: jax.Array, inputs: jax.Array
) -> jax.Array:
    """Returns the attention (t,s) to `source_ids` (s,) of the decoder that is fed `inputs` (t,)."""
    chex.assert_rank([source_ids, inputs], 1)
    source = _alone(source_ids)
    ids, segments, positions = _alone(inputs)
    batch = Batch(*source, ids, ids, segments, positions)
    weights = attention_weights(config, params, batch)
    if "cross" not in weights:
        raise UserError(
            "model.attention is none, so there is no attention to look at: choose a model with "
            "attention"
        )
    return weights["cross"][-1, 0].mean(axis=0)


def _alone(ids: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns ids, segments and positions, one row each, of a sentence that is alone in its row."""
    return ids[None], jnp.ones_like(ids)[None], jnp.arange(len(ids), dtype=jnp.int32)[None]
