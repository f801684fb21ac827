"""How well attention finds the words that are translated, where the truth is known.

A target word is said to look at the source word on which its attention has its maximum. Attention
to a word of several tokens is added up, attention from one is averaged (Clark et al. 2019, "What
Does BERT Look At?", section 4.1).

Letters: l layers, h heads, t target tokens, s source tokens, T target words, S source words.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import jax
import numpy as np

from flax_transformer.data.builtin.analysis import AnalysedPair
from flax_transformer.errors import UserError
from flax_transformer.inspection.pair_rows import PairRow, PairRows, lay_out_pairs
from flax_transformer.models.attention_weights import attention_weights
from flax_transformer.translation.trained_model import TrainedModel

Moment = Literal["written", "read"]
"""When a target word is seen to look: in the steps that write its tokens, or one step later each,
when these are the decoder's inputs."""


@dataclass(frozen=True, kw_only=True)
class AlignmentScore:
    """How well one head of the attention to the source, or the mean of a layer's heads, aligns.

    layer, head    count from 1; without a head it is the mean of all
    content_words  share of the target's content words that look at a word which they translate
    error_rate     1 - (|A and S| + |A and P|) / (|A| + |S|), in which A has the source word that
                   each target word looks at, P the true alignment, S its sure links, which A should
                   not lack (AER, Och and Ney 2003)
    """

    moment: Moment
    layer: int
    head: int | None
    content_words: float
    error_rate: float


def alignment_scores(
    model: TrainedModel, pairs: Sequence[AnalysedPair], progress: str | None = None
) -> list[AlignmentScore]:
    """Returns the scores of all heads and of their means, while the true targets are written.

    progress: names a bar on stderr

    Raises `UserError` for a model without attention.
    """
    counts = {moment: AlignmentCounts() for moment in get_args(Moment)}
    for rows, weights in _cross_attention(model, lay_out_pairs(model.tokenizer, pairs), progress):
        for row, found in zip(rows.rows, weights, strict=False):
            with_mean = np.concatenate([found, found.mean(axis=1, keepdims=True)], axis=1)
            for moment in counts:
                counts[moment].add(row.pair, between_words(with_mean, row, moment))
    return [score for moment in counts for score in counts[moment].scores(moment)]


def diagonal_score(pairs: Iterable[AnalysedPair]) -> AlignmentScore:
    """Returns the score of looking at the word in the same place, relative to the lengths.

    What attention finds beyond that, it does not owe to the order of words alone.
    """
    counts = AlignmentCounts()
    for pair in pairs:
        source, target = len(pair.source_words), len(pair.target_words)
        looks = np.zeros((1, 1, target, source + 1))
        looks[0, 0, np.arange(target), np.arange(target) * source // target] = 1
        counts.add(pair, looks)
    return next(counts.scores("written"))


def between_words(weights: np.ndarray, row: PairRow, moment: Moment) -> np.ndarray:
    """Returns the attention (l,h,T,S+1) of words, of that (l,h,t,s) of tokens.

    The last column is what looks at no word: at the end of the sentence.
    """
    shift = 1 if moment == "read" else 0
    rows = np.zeros((len(row.target_tokens), weights.shape[2]))
    for word, tokens in enumerate(row.target_tokens):
        rows[word, np.array(tokens) + shift] = 1 / len(tokens)
    columns = np.zeros((weights.shape[3], len(row.source_tokens)))
    for word, tokens in enumerate(row.source_tokens):
        columns[tokens, word] = 1
    columns /= np.maximum(columns.sum(axis=1, keepdims=True), 1)  # a token of two words
    words = rows @ weights @ columns  # lhTS
    return np.concatenate([words, 1 - words.sum(axis=-1, keepdims=True)], axis=-1)


def _as_table(links: Iterable[tuple[int, int]], shape: tuple[int, ...]) -> np.ndarray:
    """Returns where there are links, bool (T,S+1)."""
    table = np.zeros(shape, bool)
    for i, j in links:
        table[j, i] = True
    return table


class AlignmentCounts:
    """Links found, sure links, and content words that look at what they translate; arrays (l,h)."""

    def __init__(self) -> None:
        self._hits: np.ndarray = np.zeros(())
        self._found: np.ndarray = np.zeros(())
        self._correct: np.ndarray = np.zeros(())
        self._content = self._sure = 0

    def add(self, pair: AnalysedPair, words: np.ndarray) -> None:
        """Counts what the attention (l,h,T,S+1) between the words of a pair finds."""
        looks = words.argmax(axis=-1)  # lhT
        truth, sure = (
            _as_table(links, words.shape[2:])[np.arange(words.shape[2]), looks]
            for links in (pair.alignment, pair.sure_alignment)
        )
        content = np.array([word.is_content for word in pair.target_words])
        self._hits = self._hits + truth[..., content].sum(axis=-1)
        self._correct = self._correct + truth.sum(axis=-1) + sure.sum(axis=-1)
        self._found = self._found + (looks < len(pair.source_words)).sum(axis=-1)
        self._content += int(content.sum())
        self._sure += len(pair.sure_alignment)

    def scores(self, moment: Moment) -> Iterator[AlignmentScore]:
        """Yields the scores, layer by layer, of which the last head is the mean."""
        errors = 1 - self._correct / (self._found + self._sure)
        last = self._hits.shape[-1] - 1
        for (layer, head), hits in np.ndenumerate(self._hits):
            yield AlignmentScore(
                moment=moment,
                layer=layer + 1,
                head=head + 1 if head < last else None,
                content_words=float(hits / max(self._content, 1)),
                error_rate=float(errors[layer, head]),
            )


def _cross_attention(
    model: TrainedModel, batches: Iterable[PairRows], progress: str | None
) -> Iterator[tuple[PairRows, np.ndarray]]:
    """Yields each batch with the attention (b,l,h,t,s) from its target to its source."""
    from tqdm import tqdm

    look = jax.jit(partial(attention_weights, model.config))
    for rows in tqdm(batches, desc=progress, unit=" batches", disable=progress is None or None):
        weights = look(model.params, jax.device_put(rows.batch))
        if "cross" not in weights:
            raise UserError(
                "model.attention is none, so there is no attention to align words by: choose a run "
                "of a model with attention"
            )
        yield rows, np.moveaxis(jax.device_get(weights["cross"]), 1, 0)
