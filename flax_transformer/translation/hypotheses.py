"""What a search has found for the pieces of a line, as translations of the line."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.text.placeholders import are_all_there, put_back
from flax_transformer.text.tokenizer import PAD_ID, Tokenizer
from flax_transformer.translation.long_lines import Piece, join_texts

_LINE_ENDS = str.maketrans("\n\r", "  ")


class IdPair(NamedTuple):
    """The ids of what was translated and of what the search made of it, end symbols left out."""

    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True)
class Hypothesis:
    """One translation.

    text:   without "\\n" and "\\r", so that it is one line of a file
    score:  natural-log probability divided by the length penalty, plus the coverage penalty; of a
            sample the log probability alone; of a line that was cut, the sum over its pieces
    tokens: number of target tokens, end symbols included
    pairs:  the ids, a pair for each piece of the line; what is equal without them is equal
    """

    text: str
    score: float
    tokens: int
    pairs: tuple[IdPair, ...] = field(default=(), repr=False, compare=False)


NOTHING = [Hypothesis("", 0.0, 0)]


def read(
    found: Hypotheses, tokenizer: Tokenizer, keep_equal: bool = False
) -> list[list[Hypothesis]]:
    """Returns every row's hypotheses as text, best first; no text twice, unless `keep_equal`.

    A row for which none exists has one without text, whose score is -inf.
    """
    ids, scores = jax.device_get((found.ids, found.scores))
    b, w, t = ids.shape
    written = ids.reshape(b * w, t).tolist()
    texts = tokenizer.target.decode(written)
    tokens = np.count_nonzero(ids != PAD_ID, axis=2)
    rows = [
        [
            Hypothesis(
                texts[i * w + j],
                scores[i, j].item(),
                count,
                (IdPair((), tuple(written[i * w + j][: max(count - 1, 0)])),),
            )
            for j, count in enumerate(tokens[i].tolist())
            if scores[i, j] > -np.inf
        ]
        or [Hypothesis("", -math.inf, 0, (IdPair((), ()),))]
        for i in range(b)
    ]
    return rows if keep_equal else [distinct(row) for row in rows]


def count_untranslated(rows: Iterable[Sequence[Hypothesis]]) -> int:
    """Returns for how many lines no translation exists."""
    return sum(hypotheses[0].score == -math.inf for hypotheses in rows)


def complete(hypotheses: list[Hypothesis], piece: Piece) -> list[Hypothesis]:
    """Returns them with the words that placeholders stand for, and with what surrounds the piece.

    Those in which no word is lost come first.
    """
    ordered = sorted(hypotheses, key=lambda each: not are_all_there(each.text, piece.words))
    texts = [f"{piece.before}{put_back(each.text, piece.words)}{piece.after}" for each in ordered]
    source = tuple(piece.ids)
    return [
        Hypothesis(
            text.translate(_LINE_ENDS),
            each.score,
            each.tokens,
            tuple(IdPair(source, pair.target) for pair in each.pairs),
        )
        for each, text in zip(ordered, texts, strict=True)
    ]


def join(pieces: list[list[Hypothesis]], *, keep_equal: bool = False) -> list[Hypothesis]:
    """Joins the best hypotheses of the pieces in order, then the second best, and so on.

    keep_equal: whether the same text may come twice, as among samples
    """
    if not pieces:
        return NOTHING
    if len(pieces) == 1:  # as almost always: nothing to join
        joined = pieces[0]
    else:
        joined = [_join_rank(pieces, rank) for rank in range(max(map(len, pieces)))]
    return joined if keep_equal else distinct(joined)


def _join_rank(pieces: list[list[Hypothesis]], rank: int) -> Hypothesis:
    """Joins the hypotheses of that rank; of a piece that has none, the last."""
    parts = [hypotheses[min(rank, len(hypotheses) - 1)] for hypotheses in pieces]
    return Hypothesis(
        join_texts([part.text for part in parts]),
        sum(part.score for part in parts),
        sum(part.tokens for part in parts),
        tuple(pair for part in parts for pair in part.pairs),
    )


def distinct(hypotheses: Iterable[Hypothesis]) -> list[Hypothesis]:
    """Returns the best of those with the same text, which different ids may spell."""
    best: dict[str, Hypothesis] = {}
    for hypothesis in hypotheses:
        best.setdefault(hypothesis.text, hypothesis)
    return list(best.values())
