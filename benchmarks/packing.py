"""How full packed rows are, and how fast batches are made.

python benchmarks/packing.py --directory DIR --source-language en --target-language de
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from flax_transformer.config import BatchConfig, Config, TextFiles, TokenizerConfig
from flax_transformer.data.corpus import open_corpus
from flax_transformer.data.training_data import prepare_training_data


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Packs the training split of aligned text files and prints how full the rows are."""

    directory: str
    """Folder with train.<language> and valid.<language>."""
    source_language: str
    target_language: str
    vocabulary_size: int = 8000
    source_length: int = 256
    target_length: int = 256
    batches: int = 200
    """Batches of 100 rows to make for the timing."""


def main(arguments: Arguments) -> None:
    data = TextFiles(
        directory=arguments.directory,
        source_language=arguments.source_language,
        target_language=arguments.target_language,
        test=(),
    )
    config = Config(
        data=data,
        tokenizer=TokenizerConfig(vocabulary_size=arguments.vocabulary_size),
        batch=BatchConfig(
            source_length=arguments.source_length, target_length=arguments.target_length
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = prepare_training_data(open_corpus(data), config, Path(folder)).train
    source, target = rows.fill
    slots = arguments.source_length + arguments.target_length
    filled = (source * arguments.source_length + target * arguments.target_length) / slots
    print(
        f"{len(rows.lengths):,} pairs in {rows.template.num_rows:,} rows of "
        f"{arguments.source_length} + {arguments.target_length} slots: {source:.1%} of source, "
        f"{target:.1%} of target, {filled:.1%} of all slots hold a token"
    )
    start, tokens = time.perf_counter(), 0
    for step in range(arguments.batches):
        tokens += int((rows.batch(step).target_segments > 0).sum())
    print(f"{tokens / (time.perf_counter() - start):,.0f} target tokens a second on one core")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
