"""Tokenised sentence pairs and models made up for tests, and attention as models call it."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.config import Config, RecurrentConfig
from flax_transformer.data.token_cache import RaggedArray, TokenizedPairs
from flax_transformer.models.transformer import scaled_dot_product_attention
from flax_transformer.ops.attention import attention
from flax_transformer.ops.einsum import einsum
from flax_transformer.text.tokenizer import EOS_ID

FIRST_WORD = 4
"""The first id that is not special."""


def ragged(rows: Sequence[Sequence[int]]) -> RaggedArray:
    """`rows` as they would come from the token cache."""
    offsets = np.cumsum([0, *map(len, rows)])
    return RaggedArray(np.concatenate([np.asarray(row, np.int32) for row in rows]), offsets)


def draw_pairs(
    count: int, shortest: int, longest: int, vocabulary_size: int, seed: int = 0
) -> TokenizedPairs:
    """Pairs of random words; lengths, EOS included, are uniform from `shortest` to `longest`."""
    random = np.random.default_rng(seed)

    def draw_side():
        lengths = random.integers(shortest, longest + 1, count)
        return ragged(
            [[*random.integers(FIRST_WORD, vocabulary_size, n - 1), EOS_ID] for n in lengths]
        )

    return TokenizedPairs(draw_side(), draw_side())


RECURRENT: dict[str, dict] = {
    "no attention": {"attention": "none", "input_feeding": False, "bidirectional": False},
    "dot": {"attention": "dot", "cell": "gru", "num_encoder_layers": 1, "num_decoder_layers": 1},
    "general": {"attention": "general", "input_feeding": False, "cell": "gru"},
    "concat": {"attention": "concat", "coverage": True, "num_encoder_layers": 1},
    "multi_head": {"attention": "multi_head", "num_decoder_layers": 1},
}
"""Recurrent models that have, between them, every kind of cell, encoder, attention and loop."""


def recurrent(config: Config, variant: str, **model) -> Config:
    """`config` with a small recurrent model without dropout instead of its own."""
    settings = {"d_model": 16, "dropout": 0.0, "compute_dtype": "float32"}
    settings |= RECURRENT[variant] | model
    return dataclasses.replace(config, model=RecurrentConfig(**settings))


def draw(*shape, seed=0) -> jax.Array:
    """Normal numbers in bfloat16."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.bfloat16)


def draw_segments(b, t, seed, sentences=3) -> jax.Array:
    """So many sentences and padding in each row."""
    numbers = np.sort(np.random.default_rng(seed).integers(1, sentences + 2, (b, t)))
    return jnp.asarray(numbers % (sentences + 1), jnp.int32)


def equation_1(query, key, value, mask) -> jax.Array:
    """Attention by the formula, in the type of the queries."""
    own_einsum = functools.partial(einsum, dtype=query.dtype)
    return scaled_dot_product_attention(query, key, value, mask, own_einsum, lambda x: x)


packed_attention = functools.partial(attention, equation_1)
