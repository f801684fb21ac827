"""Sentences to translate, made up or read, in the batches that a translator makes of them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from flax_transformer.config import Config
from flax_transformer.text.tokenizer import EOS_ID, PAD_ID, UNK_ID

TOKENS_OF_A_WORD = 1.2


class Batch(NamedTuple):
    """Sources `ids` (b,s), and the bounds of the translations' lengths, end symbol included."""

    ids: np.ndarray
    shortest: int
    longest: int


def made_up_lengths(config: Config, count: int, source: Path | None) -> np.ndarray:
    """Returns the source tokens of each of `count` sentences, end symbol included: of the text
    `source`, or around 25 words, which is what newstest has."""
    if source is not None:
        lines = source.read_text(encoding="utf-8").splitlines()
        words = np.array([len(line.split()) for line in lines[:count]])
    else:
        # The mean of a log-normal is exp(mu + sigma^2 / 2).
        sigma = 0.5
        random = np.random.default_rng(config.training.seed)
        words = random.lognormal(np.log(25) - sigma**2 / 2, sigma, count)
    longest = config.decoding.max_source_length
    return np.clip(np.round(TOKENS_OF_A_WORD * words).astype(int) + 1, 2, longest)


def made_up_sources(config: Config, count: int, source: Path | None) -> list[list[int]]:
    """Makes random words in sentences of `made_up_lengths`."""
    random = np.random.default_rng(config.training.seed)
    v = config.tokenizer.vocabulary_size
    return [
        [*random.integers(UNK_ID + 1, v, length - 1).tolist(), EOS_ID]
        for length in made_up_lengths(config, count, source)
    ]


def batches_of(config: Config, sources: list[list[int]], fixed_length: bool) -> list[Batch]:
    """Makes batches, longest sentences first, in shapes as the translator has them."""
    sources, found = sorted(sources, key=len, reverse=True), []
    decoding = config.decoding
    while sources:
        s = min(max(16, 1 << (len(sources[0]) - 1).bit_length()), decoding.max_source_length)
        rows = max(1, decoding.batch_tokens // s)
        chosen, sources = sources[:rows], sources[rows:]
        ids = np.full((len(chosen), s), PAD_ID, np.int32)
        for row, source in zip(ids, chosen, strict=True):
            row[: len(source)] = source
        mean = round(sum(map(len, chosen)) / len(chosen))
        bounds = (mean, mean) if fixed_length else (1, len(chosen[0]) + decoding.extra_length)
        found.append(Batch(ids, *bounds))
    return found
