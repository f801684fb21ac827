"""From a corpus to the packed rows that training and validation read."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from flax_transformer.config import Config
from flax_transformer.data.augmentation import Augmentation
from flax_transformer.data.corpus import Corpus
from flax_transformer.data.packing import PackedRows, Selection, select_pairs
from flax_transformer.data.pairs import Pair, Part
from flax_transformer.data.token_cache import tokenize_pairs
from flax_transformer.data.tokenizing import BpeDropout
from flax_transformer.files.cache_directory import default_cache_directory
from flax_transformer.text.normalization import typographic_spaces
from flax_transformer.text.sentences import TrainedLengths, split_sentences
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.text.vocabulary_file import load_tokenizer
from flax_transformer.workdir import TOKENIZER_FILE

_LOOKED_AT = 100_000
"""Most training pairs from which it is learned how the text writes spaces."""

_COUNTED = 10_000
"""Most training pairs of which the sentences are counted."""

_ALMOST_ALL = 0.95


@dataclass(frozen=True)
class TrainingData:
    """All that a run reads."""

    tokenizer: Tokenizer
    train: PackedRows
    validation: PackedRows
    trained_lengths: TrainedLengths
    """Lengths that almost no source sentence of the training text exceeds."""
    notes: tuple[str, ...]
    """For a person: what was kept, what was dropped and how full the rows are."""


def prepare_training_data(corpus: Corpus, config: Config, workdir: Path) -> TrainingData:
    """Returns what a run reads of `corpus`; learns the vocabulary if `workdir` has none yet.

    Raises `UserError` for text that cannot be read or used.
    """
    tokenizer = _open_vocabulary(corpus, config, workdir / TOKENIZER_FILE)
    notes = []
    packed = {}
    dropout = _dropout(config)
    if dropout:
        notes.append(
            f"{corpus.train}: split in {dropout.samples} ways by BPE-dropout {dropout.rate}"
        )
    for split in (corpus.train, corpus.validation):
        text = corpus.split(split)
        pairs = tokenize_pairs(
            text,
            tokenizer,
            corpus.fingerprint(split),
            default_cache_directory(),
            f"Tokenising {split}",
            dropout if split == corpus.train else None,
            _augmentation(config) if split == corpus.train else None,
        )
        selection = select_pairs(pairs, config.batch, split)
        kept = np.repeat(selection.kept, _weights(text.parts, len(pairs))[selection.kept])
        rows = PackedRows(pairs, kept, config.batch, config.training.seed)
        notes.append(f"{split}: {selection.describe()}; {rows.describe()}")
        if len(text.parts) > 1:
            notes += _part_notes(text.parts, selection)
        packed[split] = rows
    if hint := _hint(packed[corpus.train]):
        notes.append(hint)
    train, validation = packed[corpus.train], packed[corpus.validation]
    lengths = _trained_lengths(corpus, config, train)
    return TrainingData(tokenizer, train, validation, lengths, tuple(notes))


def _open_vocabulary(corpus: Corpus, config: Config, path: Path) -> Tokenizer:
    """Returns the vocabulary in `path`; if there is none, learns it from the training split.

    See Section 5.1. It is learned from each pair once, whatever the weights of the parts: runs that
    differ in weights alone share the vocabulary, and with it the cached ids.
    """
    if path.exists():
        return load_tokenizer(path, config.tokenizer.vocabulary_size)
    tags = {part.tag for part in corpus.split(corpus.train).parts if part.tag is not None}
    # Spaces are made uniform on both sides; decoded text gets them as the target's text has them.
    spaces = typographic_spaces(target for _, target in _some_pairs(corpus, _LOOKED_AT))
    return train_tokenizer(
        training_sentences(corpus),
        config.tokenizer,
        path,
        config.training.seed,
        sorted(tags),
        spaces,
    )


def _dropout(config: Config) -> BpeDropout | None:
    if not config.tokenizer.dropout:
        return None
    return BpeDropout(config.tokenizer.dropout, config.tokenizer.samples, config.training.seed)


def _trained_lengths(corpus: Corpus, config: Config, rows: PackedRows) -> TrainedLengths:
    counts = [len(split_sentences(source)) for source, _ in _some_pairs(corpus, _COUNTED)]
    sentences = int(np.quantile(counts, _ALMOST_ALL, method="higher"))
    if config.data.concatenate > 1 - _ALMOST_ALL:
        sentences *= 2
    tokens = int(np.quantile(rows.lengths[:, 0], _ALMOST_ALL, method="higher")) - 1
    return TrainedLengths(max(tokens, 1), max(sentences, 1))


def _augmentation(config: Config) -> Augmentation | None:
    data = config.data
    if not data.placeholders and not data.concatenate:
        return None
    return Augmentation(data.placeholders, data.concatenate, config.training.seed)


def _some_pairs(corpus: Corpus, most: int) -> Iterator[Pair]:
    """Yields up to `most` training pairs from the whole of the text, at equal distances."""
    pairs = corpus.split(corpus.train)
    for index in range(0, len(pairs), -(-len(pairs) // most)):
        yield pairs[index]


def training_sentences(corpus: Corpus) -> Iterator[str]:
    """Yields source and target of each training pair."""
    for source, target in corpus.split(corpus.train):
        yield source
        yield target


def _weights(parts: Sequence[Part], count: int) -> np.ndarray:
    """Returns how often an epoch holds each of `count` pairs.

    The pairs are those of all `parts`, once or, with BPE-dropout, several times over.
    """
    weights = np.repeat([part.weight for part in parts], [part.count for part in parts])
    return np.resize(weights, count)


def _part_notes(parts: Sequence[Part], selection: Selection) -> Iterator[str]:
    """Yields what was kept of each part, in all splittings, and how the part is used."""
    splittings = selection.verdicts.reshape(-1, sum(part.count for part in parts))
    for part, end in zip(parts, accumulate(part.count for part in parts), strict=True):
        own = Selection(splittings[:, end - part.count : end].ravel(), selection.reasons)
        tag = f", tag {part.tag}" if part.tag else ""
        yield f"  {part.name}: {own.describe()}; weight {part.weight}{tag}"


def _hint(rows: PackedRows) -> str | None:
    """Returns which setting would fill the rows better where one language is longer; or None."""
    fill = dict(zip(("source", "target"), rows.fill, strict=True))
    side = min(fill, key=lambda name: fill[name])
    if fill[side] >= 0.9 * max(fill.values()):
        return None
    length = getattr(rows.config, f"{side}_length")
    better = 8 * math.ceil(length * fill[side] / max(fill.values()) / 8)
    if better >= length:
        return None
    return f"hint: --batch.{side}-length {better} would fill the {side} slots as well as the others"
