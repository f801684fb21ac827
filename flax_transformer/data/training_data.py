"""From a corpus to the packed rows that training and validation read."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flax_transformer.cache_directory import default_cache_directory
from flax_transformer.config import Config
from flax_transformer.data.corpus import Corpus
from flax_transformer.data.packing import PackedRows, select_pairs
from flax_transformer.data.token_cache import tokenize_pairs
from flax_transformer.data.tokenizing import BpeDropout
from flax_transformer.tokenizer import Tokenizer, train_tokenizer

TOKENIZER_FILE = "tokenizer.model"


@dataclass(frozen=True)
class TrainingData:
    """All that a run reads."""

    tokenizer: Tokenizer
    train: PackedRows
    validation: PackedRows
    notes: tuple[str, ...]
    """For a person: what was kept, what was dropped and how full the rows are."""


def prepare_training_data(corpus: Corpus, config: Config, workdir: Path) -> TrainingData:
    """Learns the vocabulary if `workdir` has none yet, tokenises and packs.

    The vocabulary comes from the training split alone (Section 5.1). Raises `ConfigError` for
    text that cannot be read or used.
    """
    path = workdir / TOKENIZER_FILE
    if path.exists():
        tokenizer = Tokenizer.load(path)
    else:
        sentences = _sentences(corpus)
        tokenizer = train_tokenizer(sentences, config.tokenizer, path, config.training.seed)
    notes = []
    packed = {}
    dropout = _dropout(config)
    if dropout:
        notes.append(
            f"{corpus.train}: split in {dropout.samples} ways by BPE-dropout {dropout.rate}"
        )
    for split in (corpus.train, corpus.validation):
        pairs = tokenize_pairs(
            corpus.split(split),
            tokenizer,
            corpus.fingerprint(split),
            default_cache_directory(),
            f"Tokenising {split}",
            dropout if split == corpus.train else None,
        )
        selection = select_pairs(pairs, config.batch)
        rows = PackedRows(pairs, selection.kept, config.batch, config.training.seed)
        notes.append(f"{split}: {selection.describe()}; {rows.describe()}")
        packed[split] = rows
    if hint := _hint(packed[corpus.train]):
        notes.append(hint)
    return TrainingData(tokenizer, packed[corpus.train], packed[corpus.validation], tuple(notes))


def _dropout(config: Config) -> BpeDropout | None:
    if not config.tokenizer.dropout:
        return None
    return BpeDropout(config.tokenizer.dropout, config.tokenizer.samples, config.training.seed)


def _sentences(corpus: Corpus) -> Iterator[str]:
    for source, target in corpus.split(corpus.train):
        yield source
        yield target


def _hint(rows: PackedRows) -> str | None:
    """Which setting would fill the rows of a corpus of which one language is longer."""
    fill = dict(zip(("source", "target"), rows.fill, strict=True))
    side = min(fill, key=lambda name: fill[name])
    if fill[side] >= 0.9 * max(fill.values()):
        return None
    length = getattr(rows.config, f"{side}_length")
    better = 8 * math.ceil(length * fill[side] / max(fill.values()) / 8)
    if better >= length:
        return None
    return f"hint: --batch.{side}-length {better} would fill the {side} slots as well as the others"
