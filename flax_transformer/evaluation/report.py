"""What an evaluation leaves in the work directory, and what it shows."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flax_transformer.config.data import require_name
from flax_transformer.errors import UserError
from flax_transformer.files.whole_file import write_whole
from flax_transformer.workdir import EVALUATION

_SHOWN_CHARACTERS = 200

_NAMES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "ter": "TER",
    "compound_split_bleu": "split BLEU",
    "comet": "COMET",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestSet:
    """Sentences to translate. `origin` says where they come from; `name` becomes a file name.

    extra_references: further texts, each with a reference for every sentence
    baseline:         translations by another system to compare with
    """

    name: str
    origin: Mapping[str, Any]
    sources: Sequence[str]
    references: Sequence[str]
    extra_references: Sequence[Sequence[str]] = ()
    baseline: Sequence[str] | None = None


def report_path(workdir: Path, test_set: TestSet) -> Path:
    """Returns where the scores of `test_set` lie once it has been evaluated."""
    return _path(workdir, test_set.name, "json")


def hypotheses_path(workdir: Path, test_set: TestSet) -> Path:
    """Returns where its translations lie then, one per line."""
    return _path(workdir, test_set.name, "hypotheses.txt")


def _path(workdir: Path, name: str, ending: str) -> Path:
    """Returns where a result lies; raises `UserError` for a name that would lead elsewhere.

    A name with folders leads to folders below EVALUATION.
    """
    require_name("the name of a test set", name)
    return workdir / EVALUATION / f"{name}.{ending}"


def make_room(workdir: Path, test_sets: Iterable[TestSet]) -> None:
    """Creates the folders for the results of `test_sets`.

    Raises `UserError` where a result could not be written later, after all the work.
    """
    paths = [
        path(workdir, test_set) for test_set in test_sets for path in (report_path, hypotheses_path)
    ]
    for path in paths:
        _create(path.parent)
    for path in paths:
        if os.path.isdir(path):
            raise UserError(f"{path} is a folder, where a file of results should be")


def _create(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory} cannot be created: {error.strerror}") from None
    if not os.access(directory, os.W_OK):
        raise UserError(f"{directory} cannot be written to")


def write_report(
    workdir: Path, test_set: TestSet, record: Mapping[str, Any], hypotheses: Sequence[str]
) -> list[Path]:
    """Writes translations and scores, each file whole or not at all; returns the paths."""
    contents = {
        hypotheses_path(workdir, test_set): "".join(f"{text}\n" for text in hypotheses),
        report_path(workdir, test_set): json.dumps(record, indent=2, ensure_ascii=False) + "\n",
    }
    for path, content in contents.items():
        write_whole(path, content)
    return list(contents)


def summary(
    test_set: TestSet, record: Mapping[str, Any], hypotheses: Sequence[str], samples: int = 3
) -> str:
    """Returns scores, speed and some translations, for a person."""
    lines = [f"{test_set.name}: {record['sentences']:,} sentences"]
    if record["sentences_cut"]:
        lines.append(f"  {record['sentences_cut']:,} longer than in training, translated in pieces")
    if empty := record["sentences_untranslated"]:
        lines.append(f"  {empty:,} without a translation that the rules of the search leave")
    lines += _scores(record)
    lines.append(
        f"  {record['target_tokens']:,} target tokens in {record['seconds']:.1f} s, "
        f"{record['tokens_per_second']:,.0f} per second; "
        f"compilation took {record['compile_seconds']:.1f} s"
    )
    for index in range(min(samples, len(hypotheses))):
        lines.append(f"  {'source':<12}{_shown(test_set.sources[index])}")
        lines.append(f"  {'reference':<12}{_shown(test_set.references[index])}")
        lines.append(f"  {'translation':<12}{_shown(hypotheses[index])}")
    return "\n".join(lines)


def _scores(record: Mapping[str, Any]) -> list[str]:
    """Returns the lines of a summary that have scores in them."""
    lines = []
    for key in (key for key in _NAMES if key in record):
        interval = f" ± {record[f'{key}_confidence']:.2f}" if f"{key}_confidence" in record else ""
        signature = record[f"{key}_signature"]
        lines.append(f"  {_NAMES[key]:<12}{record[key]:6.2f}{interval}  {signature}")
    for key, other in record.get("baseline", {}).items():
        lines.append(
            f"  {_NAMES[key]:<12}{record[key] - other['score']:+6.2f}  against the baseline's "
            f"{other['score']:.2f}: p {other['bootstrap_p']:.4f} by bootstrap, "
            f"{other['randomisation_p']:.4f} by randomisation"
        )
    for one in record.get("bleu_by_source_length", ()):
        bleu = "     -" if one["bleu"] is None else f"{one['bleu']:6.2f}"
        lines.append(f"  {'BLEU':<12}{bleu}  {one['sentences']:,} sources of {one['words']} words")
    return lines


def _shown(text: str) -> str:
    """Returns `text` short enough for a terminal, without characters that command it."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return "".join(c if c.isprintable() else " " for c in cut)
