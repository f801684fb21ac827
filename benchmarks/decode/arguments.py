"""What the timing of translation is told."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.recording import RECORDS, Recorded
from flax_transformer.commands.command_line import parse_arguments
from flax_transformer.config import Config
from flax_transformer.config.json import load_config
from flax_transformer.config.shipped import load_config_file
from flax_transformer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Times beam search with a cache, without one, and in another library."""

    config: Path | None = None
    """Python file with the settings; by default the paper's base model."""
    workdir: Path | None = None
    """Work directory of a trained model, in place of random weights; needs --source."""
    source: Path | None = None
    """Sentences to translate; with random weights, those of a made-up text's lengths."""
    sentences: int = 1000
    """Most sentences that are translated."""
    full_pass_batches: int = 1
    """Batches, evenly spaced by length, that the search without a cache gets too; 0 for none."""
    peer: Literal["ctranslate2"] | None = None
    """Another library that translates the same with the same weights."""
    vocabulary_map: tuple[Path, Path] | None = None
    """Two aligned texts from which CTranslate2 gets a vocabulary map; needs --workdir."""
    one_at_a_time: bool = False
    """Whether each sentence is translated alone."""
    repeats: int = 3
    """Repeats that count, after one that compiles and warms up; the median is the result."""
    record: Path = RECORDS / "decode.json"
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def parse(words: Sequence[str]) -> Arguments:
    """Reads `words`; raises `UserError` for what cannot be measured."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    finder.add_argument("--workdir", type=Path)
    known = finder.parse_known_args(words)[0]
    settings = Config() if known.config is None else load_config_file(known.config)
    if known.workdir is not None:
        settings = load_config(known.workdir / "config.json")
    arguments = parse_arguments(Arguments, words, Arguments(settings=settings))
    if arguments.workdir is not None and arguments.source is None:
        raise UserError("--workdir needs --source: a trained model wants real sentences")
    if arguments.vocabulary_map is not None and arguments.workdir is None:
        raise UserError("--vocabulary-map needs --workdir: random weights know no words")
    if arguments.settings.decoding.coverage_penalty:
        raise UserError("decoding.coverage_penalty needs attention: the benchmark has none, use 0")
    return arguments
