"""How fast text becomes ids and ids become batches, and how full the packed rows are.

    python -m benchmarks.input_pipeline --directory DIR --train train-1of4
    python -m benchmarks.input_pipeline --directory DIR --target-language de \
        --vocabulary-size 10000 --source-length 256

Tokenising is timed cold: from text in memory to a token cache on disk. Batches are read from that
cache as in training: packed, laid out and read ahead by one background thread of this process.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.timing import Seconds, in_turns
from flax_transformer.config import BatchConfig, Builtin, TextFiles, TokenizerConfig
from flax_transformer.data.corpus import Corpus, open_corpus
from flax_transformer.data.packing import PackedRows, select_pairs
from flax_transformer.data.pairs import PairList
from flax_transformer.data.pipeline import read_batches
from flax_transformer.data.token_cache import TokenizedPairs, tokenize_pairs
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.text.tokenizer_training import train_tokenizer


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
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
    record: Path = RECORDS / "input_pipeline.json"


def read_pairs(arguments: Arguments) -> PairList:
    """Reads the training text into memory."""
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
) -> tuple[TokenizedPairs, Seconds]:
    """Tokenises all `pairs` again and again; returns their ids too."""
    numbers = count()
    found: list[TokenizedPairs] = []

    def tokenize() -> None:
        place = folder / str(next(numbers))  # another one, or it would be read from there
        found[:] = [tokenize_pairs(pairs, tokenizer, "text", place, "Tokenising")]

    seconds = in_turns({"tokenize": tokenize}, repeats, warm_up=0)["tokenize"]
    return found[0], seconds


def time_batches(rows: PackedRows, batches: int, repeats: int) -> list[float]:
    """Returns the target tokens per second of each repeat, which goes on where the one before
    ended."""
    tokens: list[int] = []
    own = slice(0, rows.config.rows)
    stream = read_batches(rows, range(repeats * batches + 1), own)
    next(stream)  # starts the thread, and draws the plan of an epoch

    def read() -> None:
        some = islice(stream, batches)
        tokens.append(sum(np.count_nonzero(batch.target_segments) for batch in some))

    seconds = in_turns({"read": read}, repeats, warm_up=0)["read"]
    return [int(number) / taken for number, taken in zip(tokens, seconds.turns, strict=True)]


def collect(arguments: Arguments, pairs: PairList) -> dict[str, Any]:
    """Learns a vocabulary, then times both ways and counts the slots of the packed rows."""
    settings = TokenizerConfig(
        vocabulary_size=arguments.vocabulary_size,
        training_sentences=arguments.vocabulary_sentences,
    )
    lengths = (arguments.source_length, arguments.target_length)
    batch = BatchConfig(rows=arguments.rows, source_length=lengths[0], target_length=lengths[1])
    with tempfile.TemporaryDirectory() as folder:
        sentences = (side for pair in pairs for side in pair)
        tokenizer = train_tokenizer(sentences, settings, Path(folder) / "tokenizer.model", 0)
        tokens, tokenizing = time_tokenizing(pairs, tokenizer, Path(folder), arguments.repeats)
        rows = PackedRows(tokens, select_pairs(tokens, batch).kept, batch, seed=0)
        reading = time_batches(rows, arguments.batches, arguments.repeats)
    source, target = rows.fill
    return {
        "pairs_per_second": round(len(pairs) / tokenizing.median),
        "pairs_per_second_of_repeats": [round(len(pairs) / each) for each in tokenizing.turns],
        "target_tokens_per_second": round(statistics.median(reading)),
        "target_tokens_per_second_of_repeats": [round(speed) for speed in reading],
        "packed_pairs": len(rows.lengths),
        "rows": rows.template.num_rows,
        "source_length": lengths[0],
        "target_length": lengths[1],
        "source_slots_filled": round(source, 4),
        "target_slots_filled": round(target, 4),
        "slots_filled": round((source * lengths[0] + target * lengths[1]) / sum(lengths), 4),
    }


def main(arguments: Arguments) -> None:
    start = time.perf_counter()
    pairs = read_pairs(arguments)
    words = sum(len(side.split()) for pair in pairs for side in pair) / (2 * len(pairs))
    print(
        f"{len(pairs):,} pairs of {words:.1f} words per sentence, read in "
        f"{time.perf_counter() - start:.1f} s"
    )
    figures = {
        "pairs": len(pairs),
        "words_per_sentence": round(words, 1),
        "vocabulary_size": arguments.vocabulary_size,
    } | collect(arguments, pairs)
    print(f"tokenising: {figures['pairs_per_second']:,} pairs/s")
    print(f"batches from the cache: {figures['target_tokens_per_second']:,} target tokens/s")
    print(
        f"{figures['packed_pairs']:,} pairs in {figures['rows']:,} rows of "
        f"{arguments.source_length} + {arguments.target_length} slots: "
        f"{figures['source_slots_filled']:.1%} of source, {figures['target_slots_filled']:.1%} of "
        f"target, {figures['slots_filled']:.1%} of all slots hold a token"
    )
    append_record(arguments, ("numpy", "sentencepiece", "grain"), figures)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
