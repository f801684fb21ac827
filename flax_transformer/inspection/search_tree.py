"""How the beam search came to a translation: `model.search_tree("I like cold coffee.")`.

Letters: w beam width, t target length, n = 2w candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from flax_transformer.decoding.record import Record
from flax_transformer.text.tokenizer import EOS_ID, Tokenizer
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.translation.trained_model import TrainedModel
from flax_transformer.translation.translator import RecordedSearch

if TYPE_CHECKING:
    from flax_transformer.inspection.drawing import Picture


@dataclass(frozen=True, kw_only=True)
class SearchNode:
    """One candidate: a hypothesis of the position before, lengthened by one token.

    piece            as SentencePiece writes it, "</s>" for the end; of a placeholder, its word
    token            its id
    parent           place of what it lengthens among the nodes of the step before, if there is one
    log_probability  natural logarithm, of all tokens up to this one
    score            what it would be compared by if it ended here: `log_probability` divided by the
                     length penalty, plus the coverage penalty
    fate             "live" where the search goes on from it, "finished" where it is a hypothesis,
                     else "pruned"
    """

    piece: str
    token: int
    parent: int | None
    log_probability: float
    score: float
    fate: Literal["live", "finished", "pruned"]


@dataclass(frozen=True, kw_only=True)
class SearchTree:
    """One beam search.

    source         the pieces that were read, the end symbol last
    steps          the candidates of each position, most probable first: 2w of them, or as many as
                   there are; where a token is forced, that one
    hypotheses     as `Model.search` returns them
    prefix_length  number of tokens at the start that were forced: those of a prefix but for its
                   last word, of which only the characters are, unless white space follows it

    A line without text has no steps.
    """

    source: tuple[str, ...]
    steps: tuple[tuple[SearchNode, ...], ...]
    hypotheses: tuple[Hypothesis, ...]
    prefix_length: int

    def plot(self) -> "Picture":
        """Returns the search as a tree, with what was pruned, as a matplotlib Figure."""
        from flax_transformer.inspection.search_picture import plot_search

        return plot_search(self)


def trace_search(
    model: TrainedModel, source: str, *, beam_size: int | None = None, prefix: str = ""
) -> SearchTree:
    """Returns the search of `model` for the translation of `source` that begins with `prefix`.

    beam_size: by default that of `model.config.decoding`

    Raises `UserError` as `TrainedModel.record_search`.
    """
    searched = model.record_search(source, beam_size=beam_size, prefix=prefix)
    return read_search(searched, model.tokenizer)


def read_search(searched: RecordedSearch, tokenizer: Tokenizer) -> SearchTree:
    """Returns what `TrainedModel.record_search` found, in pieces of text."""
    piece, record = searched.piece, searched.record
    ids = [*piece.ids, EOS_ID]
    return SearchTree(
        source=tuple(_pieces(ids, tokenizer, piece.words)),
        steps=() if record is None else _steps(record, tokenizer, piece.words),
        hypotheses=tuple(searched.hypotheses),
        prefix_length=len(piece.forced),
    )


def _steps(
    record: Record, tokenizer: Tokenizer, words: Mapping[str, str]
) -> tuple[tuple[SearchNode, ...], ...]:
    """Returns the nodes of `record`, arrays of numpy without the axis b."""
    # Candidates that exist come first, and so do positions that have any.
    counts = np.isfinite(record.log_probs).sum(axis=1)
    steps = []
    for position, count in enumerate(counts[: np.count_nonzero(counts)]):
        pieces = _pieces(record.tokens[position, :count].tolist(), tokenizer.target, words)
        before = record.survivors[position - 1] if position else None
        steps.append(
            tuple(
                SearchNode(
                    piece=piece,
                    token=int(record.tokens[position, place]),
                    parent=None if before is None else int(before[record.parents[position, place]]),
                    log_probability=float(record.log_probs[position, place]),
                    score=float(record.scores[position, place]),
                    fate=_fate(record, position, place),
                )
                for place, piece in enumerate(pieces)
            )
        )
    return tuple(steps)


def _pieces(ids: Sequence[int], tokenizer: Tokenizer, words: Mapping[str, str]) -> list[str]:
    """Returns what each id stands for, with the words that placeholders stand for."""
    return [
        "".join(words.get(character, character) for character in piece)
        for piece in tokenizer.pieces(ids)
    ]


def _fate(record: Record, position: int, place: int) -> Literal["live", "finished", "pruned"]:
    finished = record.finished[position]
    if place < len(finished) and finished[place]:
        return "finished"
    return "live" if place in record.survivors[position] else "pruned"
