"""Lists of candidate translations, as a search or another program has written them.

A list is text, "line number ||| translation ||| score", in which further fields may follow; or
JSON, an object for each line of the source with "translation", "score" and "alternatives", objects
of the same kind.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flax_transformer.decoding.scoring import Scoring
from flax_transformer.errors import UserError, require
from flax_transformer.translation.pair_scores import PairScore

SEPARATOR = " ||| "


class Candidate(NamedTuple):
    """One translation of a list.

    line:  of the source, from 1
    score: as it was given, None where there is none
    """

    line: int
    text: str
    score: float | None


class Ranked(NamedTuple):
    """A candidate with its new score, and how probable it is, token by token."""

    candidate: Candidate
    score: float
    probable: PairScore


def is_json(lines: Sequence[str]) -> bool:
    """Returns whether a list is of JSON; one of text begins with a number."""
    return bool(lines) and lines[0].lstrip().startswith("{")


def parse_n_best(path: Path, lines: Sequence[str], sources: int) -> list[Candidate]:
    """Returns the candidates of a list for a text of `sources` lines, in the list's order.

    path: of the list, for messages

    Raises `UserError` for a line that is no candidate, or one of no line of the text.
    """
    parse = _parse_json if is_json(lines) else _parse_text
    found = []
    for place, line in enumerate(lines, 1):
        for candidate in parse(f"{path} line {place}", line, place):
            require(
                1 <= candidate.line <= sources,
                f"{path} line {place} is of line {candidate.line:,}, but the source has "
                f"{sources:,} lines: is it the list of another text?",
            )
            found.append(candidate)
    return found


def _parse_text(where: str, line: str, place: int) -> Iterator[Candidate]:
    number, *rest = line.split(SEPARATOR)
    if not rest or not number.strip().isdecimal():
        raise UserError(
            f'{where} is no "line number ||| translation": give a list that translate --n-best has '
            "written"
        )
    yield Candidate(int(number), rest[0], _number(rest[1]) if len(rest) > 1 else None)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _parse_json(where: str, line: str, place: int) -> Iterator[Candidate]:
    try:
        best = json.loads(line)
        for each in [best, *best.get("alternatives", ())]:
            text, score = each["translation"], each.get("score")
            require(isinstance(text, str), f"{where} has a translation that is no text")
            is_number = isinstance(score, int | float) and not isinstance(score, bool)
            yield Candidate(place, text, float(score) if is_number else None)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f'{where} is no object with a "translation": give a list that translate '
            "--output-format jsonl has written"
        ) from None


def require_scores(path: Path, candidates: Sequence[Candidate]) -> None:
    """Raises `UserError` for a candidate of the list at `path` that has no score."""
    for candidate in candidates:
        require(
            candidate.score is not None,
            f"{path} has no score for {candidate.text[:40]!r} of line {candidate.line:,}: "
            "put one behind each translation, such as 0 with --weight 1",
        )


def rerank(
    candidates: Sequence[Candidate],
    probable: Sequence[PairScore],
    weight: float,
    scoring: Scoring,
) -> dict[int, list[Ranked]]:
    """Returns the candidates of each line, lines in order, the best first.

    candidates: each with a score
    probable:   how probable a model finds each of them
    weight:     of that model, 0 to 1: a score is (1 - weight) times the one given, plus weight
                times the log probability over the length penalty of `scoring`

    Of equally good ones the first stays first.
    """
    lines: dict[int, list[Ranked]] = {}
    for candidate, one in zip(candidates, probable, strict=True):
        assert candidate.score is not None
        length: Any = np.float64(len(one.tokens))
        own = float(scoring.score(one.total, length))  # type: ignore[arg-type]
        score = (1 - weight) * candidate.score + weight * own
        lines.setdefault(candidate.line, []).append(Ranked(candidate, score, one))
    return {line: sorted(lines[line], key=lambda ranked: -ranked.score) for line in sorted(lines)}
