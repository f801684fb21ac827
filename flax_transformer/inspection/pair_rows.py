"""Analysed pairs laid out for a model, one to a row, and the tokens of each of their words."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from flax_transformer.batch import Batch
from flax_transformer.data.builtin.analysis import AnalysedPair, Word
from flax_transformer.data.packing import lay_out
from flax_transformer.data.token_cache import TokenizedPairs
from flax_transformer.errors import UserError
from flax_transformer.text.tokenizer import Tokenizer

_ROWS = 32


class PairRow(NamedTuple):
    """A pair, and which tokens of its row make up each word, by the word's place."""

    pair: AnalysedPair
    source_tokens: list[range]
    target_tokens: list[range]


class PairRows(NamedTuple):
    """Row i of the batch holds the pair `rows[i]`; rows after those are empty."""

    batch: Batch
    rows: list[PairRow]


def lay_out_pairs(tokenizer: Tokenizer, pairs: Sequence[AnalysedPair]) -> Iterator[PairRows]:
    """Yields all pairs in batches of one shape.

    Raises `UserError` where the vocabulary writes a text differently.
    """
    sources = tokenizer.encode([pair.source for pair in pairs])
    targets = tokenizer.target.encode([pair.target for pair in pairs])
    tokens = TokenizedPairs.of(sources, targets)
    rows = [
        PairRow(
            pair,
            tokens_of_words(tokenizer, source, pair.source_words),
            tokens_of_words(tokenizer, target, pair.target_words),
        )
        for pair, source, target in zip(pairs, sources, targets, strict=True)
    ]
    lengths = int(tokens.source.lengths.max()), int(tokens.target.lengths.max())
    for first in range(0, len(pairs), _ROWS):
        last = min(first + _ROWS, len(pairs))
        members = np.split(np.arange(first, last), range(1, _ROWS))
        yield PairRows(lay_out(tokens, members, *lengths), rows[first:last])


def tokens_of_words(tokenizer: Tokenizer, ids: Sequence[int], words: Sequence[Word]) -> list[range]:
    """Returns for each word the places of the tokens that spell a part of it.

    A token that spells parts of two words, such as "l'a" of "l'arbre", belongs to both.
    Raises `UserError` where the tokens spell something else than the words.
    """
    spelled = [
        bytes([token - tokenizer.byte_ids.start])
        if token in tokenizer.byte_ids
        else piece.replace("\u2581", "").encode()
        for token, piece in zip(ids, tokenizer.pieces(ids), strict=True)
    ]
    text = "".join(word.text for word in words).encode()
    if b"".join(spelled) != text:
        raise UserError(
            f"the vocabulary writes '{text.decode()}' as '{b''.join(spelled).decode()}', so its "
            "tokens cannot be told apart by words: train with --tokenizer.normalization nfc"
        )
    starts = np.cumsum([0, *map(len, spelled)])
    found, end = [], 0
    for word in words:
        begin, end = end, end + len(word.text.encode())
        first = np.searchsorted(starts, begin, side="right") - 1
        found.append(range(int(first), int(np.searchsorted(starts, end, side="left"))))
    return found
