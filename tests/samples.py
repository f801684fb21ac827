"""Tokenised sentence pairs made up for tests."""

from collections.abc import Sequence

import numpy as np

from flax_transformer.data.token_cache import RaggedArray, TokenizedPairs
from flax_transformer.tokenizer import EOS_ID

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
