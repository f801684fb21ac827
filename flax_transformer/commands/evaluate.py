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
    TranslatingArguments,
    move_corpus,
    parse_decoding_arguments,
)
from flax_transformer.commands.text_files import read_lines
from flax_transformer.config import BleuTokenizer, Config
from flax_transformer.config.data import require_name
from flax_transformer.errors import UserError

if TYPE_CHECKING:  # the libraries take seconds to load, which --help should not
    from flax_transformer.evaluation.report import TestSet


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(TranslatingArguments):
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
    extra_references: tuple[Path, ...] = ()
    """Files of further right translations, line by line; sacreBLEU's metrics take each for as good
    as the first."""
    baseline: Path | None = None
    """File of another system's translations, line by line: is the difference more than chance?
    Tested by a paired bootstrap and by approximate randomisation (sacreBLEU's)."""
    confidence: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Give each of sacreBLEU's metrics with half the width of its 95% interval, by 1,000 bootstrap
    resamples."""
    by_source_length: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also give BLEU of short and of long sources apart, by their words."""
    metrics: tuple[Literal["bleu", "chrf", "ter", "comet"], ...] = ("bleu", "chrf", "ter")
    """Which scores to compute, such as: --metrics bleu chrf. TER takes longest, 10 s for a line of
    two hundred words. comet needs the package unbabel-comet in an environment of its own."""
    comet_model: str = "Unbabel/wmt22-comet-da"
    """With --metrics comet: the model, which the package fetches, or a file .ckpt."""
    comet_command: str = "comet-score"
    """With --metrics comet: the package's command, or a path to it."""
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
    if arguments.mbr is not None:
        from flax_transformer.translation.minimum_risk import sampling_config

        config = sampling_config(config, arguments.mbr)

    from flax_transformer.evaluation.evaluation import report_on
    from flax_transformer.evaluation.measures import Measures
    from flax_transformer.evaluation.scores import METRICS

    measures = Measures(
        metrics=[name for name in METRICS if name in arguments.metrics],
        lowercase=arguments.lowercase,
        tokenize=arguments.tokenize,
        confidence=arguments.confidence,
        by_length=arguments.by_source_length,
        compound_split=arguments.compound_split,
        comet_model=arguments.comet_model if "comet" in arguments.metrics else None,
        comet_command=arguments.comet_command,
    )
    report_on(
        arguments.workdir,
        config,
        _test_sets(arguments, config),
        measures=measures,
        others=arguments.ensemble,
        risk_metric=arguments.risk_metric,
        results=arguments.results,
    )


def _check(arguments: EvaluateArguments) -> None:
    if not arguments.metrics:
        raise UserError("--metrics names none: give some of bleu, chrf, ter and comet")
    if (arguments.source is None) != (arguments.reference is None):
        raise UserError("--source and --reference go together: give both or neither")
    if arguments.split is not None and arguments.source is not None:
        raise UserError("--split and --source exclude each other: give one of them")
    name = arguments.name
    for option, value in (
        ("--name", name),
        ("--extra-references", arguments.extra_references or None),
        ("--baseline", arguments.baseline),
    ):
        if value is not None and arguments.split is None and arguments.source is None:
            raise UserError(f"{option} is for one test set: give --split or --source too")
    if arguments.baseline is not None and set(arguments.metrics) == {"comet"}:
        raise UserError("--baseline is compared by bleu, chrf and ter: name some of them, too")
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
    return [_with_files(one, arguments) for one in test_sets]


def _with_files(test_set: TestSet, arguments: EvaluateArguments) -> TestSet:
    """`test_set` with further references and the translations to compare with, where named."""
    lines, origin = len(test_set.sources), dict(test_set.origin)

    def read(path: Path, option: str) -> list[str]:
        found = read_lines(path, option)
        if len(found) != lines:
            raise UserError(
                f"{option} {path} has {len(found):,} lines, but {test_set.name} {lines:,}: give "
                "one for each sentence"
            )
        return found

    extra = [read(path, "--extra-references") for path in arguments.extra_references]
    baseline = None
    if extra:
        origin["extra_references"] = list(map(_text, arguments.extra_references))
    if arguments.baseline is not None:
        baseline = read(arguments.baseline, "--baseline")
        origin["baseline"] = _text(arguments.baseline)
    return dataclasses.replace(test_set, origin=origin, extra_references=extra, baseline=baseline)


def _text(path: Path) -> str:
    """`path` for JSON, which cannot hold the bytes of a name that is not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")
