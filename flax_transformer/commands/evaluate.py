"""Scores a trained model: python evaluate.py --workdir runs/quickstart

Translates every test split of the run's corpus (or one, or any pair of files) and leaves the scores
in evaluation/<split>.json of the work directory, the translations beside them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from flax_transformer.commands.command_line import (
    DecodingArguments,
    move_corpus,
    parse_decoding_arguments,
)
from flax_transformer.config import BleuTokenizer, Config
from flax_transformer.config.data import require_name
from flax_transformer.errors import UserError

if TYPE_CHECKING:  # the libraries take seconds to load, which --help should not
    from flax_transformer.evaluation.report import TestSet


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(DecodingArguments):
    """Translates test sets with a trained model and scores the translations.

    Without --split or --source, every test split of the run's corpus. Results go to
    evaluation/<name>.json and evaluation/<name>.hypotheses.txt in the work directory.
    """

    split: str | None = None
    """The only split to score, such as validation."""
    source: Path | None = None
    """File to translate instead of a split, a sentence a line (compressed by gzip or xz,
    too)."""
    reference: Path | None = None
    """File of the right translations of --source, line by line."""
    name: str | None = None
    """Name of the results; by default that of the split, or of the --source file."""
    data_directory: Annotated[str | None, tyro.conf.arg(name="data.directory")] = None
    """Folder where the run's corpus lies now, if it was moved since it was trained on."""
    metrics: tuple[Literal["bleu", "chrf", "ter"], ...] = ("bleu", "chrf", "ter")
    """Which scores to compute, such as: --metrics bleu chrf. TER takes longest, 10 s for a line of
    two hundred words."""
    lowercase: bool = False
    """BLEU takes capitals for small letters, as by the same flag of sacrebleu, whose chrF tells
    them apart."""
    tokenize: BleuTokenizer = "auto"
    """How BLEU splits words: auto as in the run's validations, none for text that is tokenised
    already, flores200 to compare languages (sacreBLEU fetches it)."""
    compound_split: bool = False
    """Also compute the measure of the paper's tables for German, which is not comparable with BLEU;
    needs sacremoses."""


def main(words: Sequence[str]) -> None:
    arguments, config = parse_decoding_arguments(EvaluateArguments, words)
    _check(arguments)

    from flax_transformer.evaluation.evaluation import report_on

    report_on(
        arguments.workdir,
        config,
        _test_sets(arguments, config),
        metrics=arguments.metrics,
        lowercase=arguments.lowercase,
        tokenize=arguments.tokenize,
        compound_split=arguments.compound_split,
    )


def _check(arguments: EvaluateArguments) -> None:
    if not arguments.metrics:
        raise UserError("--metrics names none: give some of bleu, chrf and ter")
    if (arguments.source is None) != (arguments.reference is None):
        raise UserError("--source and --reference go together: give both or neither")
    if arguments.split is not None and arguments.source is not None:
        raise UserError("--split and --source exclude each other: give one of them")
    name = arguments.name
    if name is not None and arguments.split is None and arguments.source is None:
        raise UserError("--name is for one test set: give --split or --source too")
    if name is not None:
        require_name("--name", name)
    if arguments.data_directory is not None and arguments.source is not None:
        raise UserError("--data.directory is for the run's own corpus, not for --source")


def _test_sets(arguments: EvaluateArguments, config: Config) -> list[TestSet]:
    """What to translate, read and checked in full before the model is loaded."""
    from flax_transformer.data.corpus import open_corpus
    from flax_transformer.data.text_files import TextPairs
    from flax_transformer.evaluation.evaluation import corpus_test_sets, make_test_set

    source, reference = arguments.source, arguments.reference
    if source is None or reference is None:
        config = move_corpus(config, arguments.data_directory)
        test_sets = corpus_test_sets(open_corpus(config.data), config, arguments.split)
    else:
        pairs = TextPairs([(source, reference)])
        if not len(pairs):
            raise UserError(f"{source} is empty: there is nothing to translate")
        origin = {"source": _text(source), "reference": _text(reference)}
        test_sets = [make_test_set(source.name, pairs, origin)]
    if arguments.name is not None:
        test_sets = [dataclasses.replace(test_sets[0], name=arguments.name)]
    return test_sets


def _text(path: Path) -> str:
    """`path` for JSON, which cannot hold the bytes of a name that is not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")
