"""What a loss is worth: cross entropies, in nats per token, of predictors that see no source.

Letters: n tokens, v vocabulary.
"""

import math
from dataclasses import dataclass

import numpy as np

_MOST_TOKENS = 1 << 24  # of the training data: counts of more change nothing that can be seen
_BIGRAM_SHARE = 0.9  # of the bigram in the mixture with the unigram; the text fixes it roughly


@dataclass(frozen=True)
class Baselines:
    """Cross entropies of the validation targets."""

    uniform: float
    """log(v): every token equally probable, as from a model that was never trained."""
    unigram: float
    """Every token as probable as it is frequent in the training targets."""
    bigram: float
    """The same given the token before, mixed with the unigram."""
    smoothing_floor: float
    """What label smoothing leaves of the training loss even where every token is certain."""


def baselines(
    train: np.ndarray, validation: np.ndarray, vocabulary_size: int, label_smoothing: float
) -> Baselines:
    """Returns those of flat streams of target ids (n,), each sentence ended by the end symbol."""
    train = train[:_MOST_TOKENS].astype(np.int64)
    validation = validation[:_MOST_TOKENS].astype(np.int64)
    probabilities = unigram(train, vocabulary_size)
    # The end symbol of the sentence before stands for the beginning of a sentence.
    following = bigram_probability(train, validation, probabilities)
    return Baselines(
        uniform=math.log(vocabulary_size),
        unigram=float(-np.log(probabilities[validation]).mean()),
        bigram=float(-np.log(following).mean()),
        smoothing_floor=smoothing_floor(label_smoothing, vocabulary_size),
    )


def unigram(ids: np.ndarray, vocabulary_size: int) -> np.ndarray:
    """Returns the probability of each token (v,): its count in `ids` and one more, so none is 0."""
    counts = np.bincount(ids, minlength=vocabulary_size) + 1
    return counts / counts.sum()


def bigram_probability(
    train: np.ndarray, validation: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    """Returns the probability (n - 1,) of each token of `validation` after the first.

    It is given the token before: the share of the token in what follows that one in `train`, mixed
    with the unigram `probabilities` (v,).
    """
    v = len(probabilities)
    pairs, counts = np.unique(train[:-1] * v + train[1:], return_counts=True)
    before = np.bincount(train[:-1], minlength=v)
    asked = validation[:-1] * v + validation[1:]
    place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    found = np.where(pairs[place] == asked, counts[place], 0)
    share = found / np.maximum(before[validation[:-1]], 1)
    return _BIGRAM_SHARE * share + (1 - _BIGRAM_SHARE) * probabilities[validation[1:]]


def smoothing_floor(label_smoothing: float, vocabulary_size: int) -> float:
    """Returns the entropy of the smoothed label (1 - e) one_hot + e / v (Section 5.4).

    No loss against such a label is lower.
    """
    other = label_smoothing / vocabulary_size
    true = 1 - label_smoothing + other
    rest = (vocabulary_size - 1) * other * math.log(other) if other else 0.0
    return -(true * math.log(true) + rest)
