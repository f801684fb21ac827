"""How fast text becomes ids, and ids become batches.

    python benchmarks/input_pipeline.py --directory DIR --source-language en --target-language fr \
        --train train-1of4

Tokenising is timed cold: from text in memory to a token cache on disk. Batches are read from that
cache as in training: packed, laid out and read ahead by one background thread of this process.
Appends a record to benchmarks/records/input_pipeline.json.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from recording import RECORDS, append_record

from flax_transformer.config import BatchConfig, Builtin, TextFiles, TokenizerConfig
from flax_transformer.data.corpus import Corpus, open_corpus
from flax_transformer.data.packing import PackedRows, select_pairs
from flax_transformer.data.pairs import PairList
from flax_transformer.data.pipeline import read_batches
from flax_transformer.data.token_cache import TokenizedPairs, tokenize_pairs
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.text.tokenizer_training import train_tokenizer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Times the way from sentence pairs to packed batches."""

    directory: str | None = None
    """Folder with aligned text; without it the built-in grammar makes the sentences."""
    source_language: str = "en"
    target_language: str = "fr"
    train: tuple[str, ...] = ("train",)
    """Names of the files, without the language."""
    pairs: int | None = None
    """The first so many pairs; by default all."""
    vocabulary_size: int = 32_000
    vocabulary_sentences: int = 200_000
    """Sentences that the vocabulary is learnt from, which is not timed."""
    rows: int = 100
    source_length: int = 224
    target_length: int = 256
    batches: int = 300
    """Batches to make in each repeat."""
    repeats: int = 3
    note: str = ""
    """What a reader should know, such as other load on the machine."""
    record: Path = RECORDS / "input_pipeline.json"


def read_pairs(arguments: Arguments) -> PairList:
    """The training text, in memory."""
    if arguments.directory is None:
        corpus = open_corpus(Builtin(num_pairs=arguments.pairs or Builtin().num_pairs))
    else:
        corpus = open_corpus(
            TextFiles(
                directory=arguments.directory,
                source_language=arguments.source_language,
                target_language=arguments.target_language,
                train=arguments.train,
                validation=arguments.train[0],
                test=(),
            )
        )
    return PairList(corpus.split(Corpus.train)[: arguments.pairs])


def time_tokenizing(
    pairs: PairList, tokenizer: Tokenizer, folder: Path, repeats: int
) -> tuple[TokenizedPairs, list[float]]:
    """Ids of all `pairs`, and the pairs a second of each repeat."""
    speeds = []
    for repeat in range(repeats):
        start = time.perf_counter()
        tokens = tokenize_pairs(pairs, tokenizer, "text", folder / str(repeat), "Tokenising")
        speeds.append(len(pairs) / (time.perf_counter() - start))
    return tokens, speeds


def time_batches(rows: PackedRows, batches: int, repeats: int) -> list[float]:
    """Target tokens a second in each repeat, which goes on where the one before ended."""
    speeds = []
    own = slice(0, rows.config.rows)
    for repeat in range(repeats):
        stream = read_batches(rows, range(repeat * batches, (repeat + 1) * batches + 1), own)
        next(stream)  # starts the thread, and draws the plan of an epoch
        start, tokens = time.perf_counter(), 0
        for batch in stream:
            tokens += np.count_nonzero(batch.target_segments)
        speeds.append(tokens / (time.perf_counter() - start))
    return speeds


def main(arguments: Arguments) -> None:
    start = time.perf_counter()
    pairs = read_pairs(arguments)
    words = sum(len(side.split()) for pair in pairs for side in pair) / (2 * len(pairs))
    print(
        f"{len(pairs):,} pairs of {words:.1f} words a sentence, read in "
        f"{time.perf_counter() - start:.1f} s"
    )
    settings = TokenizerConfig(
        vocabulary_size=arguments.vocabulary_size,
        training_sentences=arguments.vocabulary_sentences,
    )
    batch = BatchConfig(
        rows=arguments.rows,
        source_length=arguments.source_length,
        target_length=arguments.target_length,
    )
    with tempfile.TemporaryDirectory() as folder:
        sentences = (side for pair in pairs for side in pair)
        tokenizer = train_tokenizer(sentences, settings, Path(folder) / "tokenizer.model", 0)
        tokens, tokenizing = time_tokenizing(pairs, tokenizer, Path(folder), arguments.repeats)
        rows = PackedRows(tokens, select_pairs(tokens, batch).kept, batch, seed=0)
        reading = time_batches(rows, arguments.batches, arguments.repeats)
    figures: dict[str, Any] = {
        "pairs": len(pairs),
        "words_per_sentence": round(words, 1),
        "vocabulary_size": arguments.vocabulary_size,
        "pairs_per_second": round(statistics.median(tokenizing)),
        "pairs_per_second_of_repeats": [round(speed) for speed in tokenizing],
        "target_tokens_per_second": round(statistics.median(reading)),
        "target_tokens_per_second_of_repeats": [round(speed) for speed in reading],
        "target_slots_filled": round(rows.fill[1], 4),
    }
    print(f"tokenising: {figures['pairs_per_second']:,} pairs/s")
    print(f"batches from the cache: {figures['target_tokens_per_second']:,} target tokens/s")
    append_record(arguments.record, ("numpy", "sentencepiece", "grain"), arguments.note, figures)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
