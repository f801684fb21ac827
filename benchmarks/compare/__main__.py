"""LSTMs without and with attention and the Transformer: as many parameters, as much time each.

    python -m benchmarks.compare --data.directory DIR --workdir runs/compare
    python -m benchmarks.compare --data.directory DIR --pairs 10000 --minutes 5 \\
        --record benchmarks/records/compare/tatoeba_10000_pairs/record.json

Each system is trained for --minutes, one after the other, on the same batches of the same
vocabulary; only seconds spent in training steps count. The LSTMs are as wide as it takes to have
about as many parameters as the Transformer (--model.*). Every system is then scored by the same
search on the test files, and on those of other folders (--further-tests), which may hold longer
sentences than training did. No line is cut into pieces unless --decoding.max-source-length says so.

The work directory has a folder for each system. The same command again goes on where it stopped:
what is trained and scored stays, a system in training goes on from its checkpoint with the time it
has had. With more --minutes all go on from where they ended.

Prints tables in Markdown and draws three pictures beside the record: learning curves, BLEU by
length, and the alignment of --sentence with --translation in every model that has attention.
Nothing else should run on the machine, or time is not equal work.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.compare.arguments import Arguments, System, parse, shared_config
from benchmarks.recording import append_record
from flax_transformer.commands.command_line import run_command
from flax_transformer.config import Config, TextFiles
from flax_transformer.errors import UserError

# JAX must not be loaded before run_command has named the folder of compiled programs, so what
# loads it is imported where it is used.
if TYPE_CHECKING:
    from flax_transformer.evaluation.report import TestSet


def drawn_or_whole(arguments: Arguments) -> TextFiles:
    """Returns the corpus that the systems are trained on."""
    if arguments.pairs is None:
        return arguments.data
    return draw_pairs(arguments.data, arguments.pairs, arguments.seed, arguments.workdir)


def draw_pairs(data: TextFiles, pairs: int, seed: int, workdir: Path) -> TextFiles:
    """Writes a folder in `workdir` with `pairs` training pairs of `data`, drawn by `seed`, in their
    order, and the whole of its other splits."""
    from flax_transformer.data.corpus import open_corpus

    directory = workdir / f"corpus_{pairs}_pairs_seed_{seed}"
    drawn = dataclasses.replace(data, directory=str(directory), train=("train",))
    if directory.exists():
        return drawn
    corpus = open_corpus(data)
    every = corpus.split(corpus.train)
    if pairs > len(every):
        raise UserError(f"--pairs is {pairs:,}, but {data.directory} has {len(every):,} to train")
    chosen = sorted(random.Random(seed).sample(range(len(every)), pairs))
    splits = {"train": [every[index] for index in chosen]}
    splits[data.validation] = corpus.split(corpus.validation)
    splits |= {name: corpus.split(name) for name in data.test}
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, some in splits.items():
        for side, language in enumerate((data.source_language, data.target_language)):
            text = "".join(pair[side] + "\n" for pair in some)
            (partial / f"{name}.{language}").write_text(text, encoding="utf-8", newline="")
    partial.rename(directory)
    return drawn


def test_sets(config: Config, folders: Sequence[Path]) -> list[TestSet]:
    """Returns those of the corpus, and the files of the same names in other `folders`."""
    from flax_transformer.data.corpus import open_corpus
    from flax_transformer.data.text_files import TextPairs, find_files
    from flax_transformer.evaluation.evaluation import corpus_test_sets, make_test_set

    data = config.data
    assert isinstance(data, TextFiles)
    found = corpus_test_sets(open_corpus(data), config)
    languages = (data.source_language, data.target_language)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--further-tests names {folder}, which is not a folder")
        for name in data.test:
            pairs = TextPairs([find_files(folder, languages, "--further-tests", name)])
            origin = {"folder": folder.name, "split": name}
            found.append(make_test_set(f"{folder.name}_{name}", pairs, origin))
    names = [test_set.name for test_set in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two test sets are called {twice.pop()}: rename a folder")
    return found


def train_system(config: Config, workdir: Path, vocabulary: Path, arguments: Arguments) -> bool:
    """Trains one system in `workdir` for its time; False when asked to stop before."""
    from benchmarks.compare.training import train
    from flax_transformer.training.run import Run

    workdir.mkdir(parents=True, exist_ok=True)
    partial = workdir / (vocabulary.name + ".partial")
    shutil.copyfile(vocabulary, partial)
    partial.replace(workdir / vocabulary.name)
    return train(Run(config, workdir), 60 * arguments.minutes, arguments.validations)


def score_system(config: Config, workdir: Path, sets: Sequence[TestSet]) -> None:
    """Scores the test sets of which `workdir` has no scores for its last checkpoint."""
    from flax_transformer.evaluation.evaluation import report_on
    from flax_transformer.evaluation.report import report_path
    from flax_transformer.training.metrics import read_metrics

    last_step = read_metrics(workdir)[-1]["step"]
    # As a record gives it back: tuples become lists.
    decoding = json.loads(json.dumps(dataclasses.asdict(config.decoding)))

    def is_scored(test_set: TestSet) -> bool:
        path = report_path(workdir, test_set)
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        return record is not None and (
            record["checkpoints"][-1] == last_step
            and record["decoding"] == decoding
            and record["test_set"]["sha256"] == test_set.origin["sha256"]
        )

    if missing := [test_set for test_set in sets if not is_scored(test_set)]:
        report_on(workdir, config, missing, samples=0)


def train_and_score(
    arguments: Arguments, shared: Config, sets: Sequence[TestSet]
) -> dict[System, Config] | None:
    """Trains and scores every system, one after the other; returns their settings, or None when
    asked to stop before."""
    from benchmarks.compare.systems import configurations
    from flax_transformer.data.corpus import open_corpus
    from flax_transformer.data.training_data import prepare_training_data
    from flax_transformer.workdir import TOKENIZER_FILE

    # Learns the vocabulary that all systems get, and fills the cache of tokens.
    prepare_training_data(open_corpus(shared.data), shared, arguments.workdir)
    found = configurations(shared, arguments.systems, arguments.lstm_dropout)
    for system, config in found.items():
        print(f"\n== {system}", flush=True)
        workdir = arguments.workdir / system
        if not train_system(config, workdir, arguments.workdir / TOKENIZER_FILE, arguments):
            return None
        score_system(config, workdir, sets)
    return found


def main(words: Sequence[str]) -> None:
    arguments = parse(words)
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    shared = shared_config(arguments, drawn_or_whole(arguments))
    sets = test_sets(shared, arguments.further_tests)
    systems = train_and_score(arguments, shared, sets)
    if systems is None:
        return
    from benchmarks.compare.figures import collect
    from benchmarks.compare.pictures import draw
    from benchmarks.compare.tables import tables

    figures = collect(arguments, systems, sets) | {"load_average": os.getloadavg()[0]}
    print(tables(figures))
    for path in draw(figures, arguments.record):
        print(f"drawn in {path}")
    packages = ("jax", "jaxlib", "flax", "optax", "sentencepiece", "sacrebleu")
    append_record(arguments, packages, figures)


if __name__ == "__main__":
    run_command(main)
