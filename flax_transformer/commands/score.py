"""Says how probable a model finds translations: log probabilities of pairs, token by token.

    flax-transformer score --workdir runs/base --source test.en --target test.fr
    flax-transformer score --workdir runs/base --source test.en --n-best candidates.txt

The first writes a line for each pair and the perplexity of all, the second adds a score to each
line of a list that `translate --n-best` has written.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flax_transformer.commands.command_line import DecodingArguments, parse_decoding_arguments
from flax_transformer.commands.text_files import open_output, read_lines
from flax_transformer.errors import UserError, require

if TYPE_CHECKING:  # the libraries take seconds to load, which --help should not
    from flax_transformer.translation.pair_scores import PairScore

_SEPARATOR = " ||| "
_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class ScoreArguments(DecodingArguments):
    """Scores translations that are given: the natural logarithm of their probability.

    Text is UTF-8, a sentence a line, and may be compressed by gzip or xz. Nothing is cut, however
    long it is.
    """

    source: Path
    """File of the texts that were translated."""
    target: Path | None = None
    """File of their translations, line by line."""
    n_best: Path | None = None
    """In place of --target: a list as by translate --n-best, "line number ||| translation ||| ...".
    Each of its lines comes out with " ||| log probability" added."""
    output: Path | None = None
    """File for the scores instead of standard output; it appears once all are done."""
    output_format: Literal["text", "jsonl"] = "text"
    """text: log probability and number of tokens, end symbol included, with a tab between; jsonl:
    an object a line, with every token and its log probability too."""


@dataclass
class Totals:
    """Sums over all pairs."""

    pairs: int = 0
    tokens: int = 0
    log_probability: float = 0.0

    def add(self, scores: Sequence[PairScore]) -> None:
        self.pairs += len(scores)
        self.tokens += sum(len(score.tokens) for score in scores)
        self.log_probability += sum(score.total for score in scores)

    def describe(self) -> str:
        mean = self.log_probability / max(self.tokens, 1)
        return (
            f"{self.pairs:,} pairs, {self.tokens:,} tokens: log probability {mean:.4f} per token, "
            f"perplexity {math.exp(-mean):.3f}"
        )


def main(words: Sequence[str]) -> None:
    arguments, config = parse_decoding_arguments(ScoreArguments, words)
    require(
        (arguments.target is None) != (arguments.n_best is None),
        "give either --target or --n-best",
    )
    require(
        arguments.n_best is None or arguments.output_format == "text",
        "--n-best writes text: leave out --output-format jsonl",
    )
    # Read and checked in full before the model is loaded.
    sources = read_lines(arguments.source, "--source")
    if arguments.n_best is None:
        assert arguments.target is not None
        lines, numbers = read_lines(arguments.target, "--target"), list(range(len(sources)))
        require(
            len(lines) == len(sources),
            f"{arguments.source} has {len(sources):,} lines and {arguments.target} {len(lines):,}: "
            "give one translation for each line",
        )
        targets = lines
    else:
        lines = read_lines(arguments.n_best, "--n-best")
        numbers, targets = _parse_n_best(arguments.n_best, lines, len(sources))

    from tqdm import tqdm

    from flax_transformer.translation.trained_model import TrainedModel

    as_text = _format(arguments)
    totals = Totals()
    with open_output(arguments.output) as write:
        model = TrainedModel(arguments.workdir, config)
        for note in model.notes:
            print(note, file=sys.stderr)
        with tqdm(total=len(targets), desc="Scoring", unit=" pairs", disable=None) as bar:
            for first in range(0, len(targets), _AT_ONCE):
                chunk = slice(first, first + _AT_ONCE)
                texts = [sources[number] for number in numbers[chunk]]
                scores = model.pair_scores(texts, targets[chunk])
                write("".join(map(as_text, lines[chunk], scores)))
                totals.add(scores)
                bar.update(len(scores))
    print(totals.describe(), file=sys.stderr)


def _parse_n_best(path: Path, lines: Sequence[str], sources: int) -> tuple[list[int], list[str]]:
    """Returns the place of the source, from 0, and the translation of each line."""

    def parse() -> Iterator[tuple[int, str]]:
        for place, line in enumerate(lines, 1):
            number, *rest = line.split(_SEPARATOR)
            if not rest or not number.strip().isdecimal():
                raise UserError(
                    f'{path} line {place} is no "line number ||| translation": give a list that '
                    "translate --n-best has written"
                )
            if not 1 <= int(number) <= sources:
                raise UserError(
                    f"{path} line {place} is of line {int(number):,}, but the source has "
                    f"{sources:,} lines: is it the list of another text?"
                )
            yield int(number) - 1, rest[0]

    found = list(parse())
    return [number for number, _ in found], [text for _, text in found]


def _format(arguments: ScoreArguments) -> Callable[[str, PairScore], str]:
    if arguments.n_best is not None:
        return lambda line, score: f"{line}{_SEPARATOR}{score.total:.4f}\n"
    if arguments.output_format == "jsonl":
        return lambda line, score: _as_json(score)
    return lambda line, score: f"{score.total:.4f}\t{len(score.tokens)}\n"


def _as_json(score: PairScore) -> str:
    found = {
        "log_probability": round(score.total, 4),
        "tokens": score.tokens,
        "log_probabilities": [round(each, 4) for each in score.log_probabilities],
    }
    return json.dumps(found, ensure_ascii=False) + "\n"
