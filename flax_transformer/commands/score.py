"""Says how probable a model finds translations: log probabilities of pairs, token by token.

    flax-transformer score --workdir runs/base --source test.en --target test.fr
    flax-transformer score --workdir runs/base --source test.en --n-best candidates.txt --weight 0.5

The first writes a line for each pair and the perplexity of all, the second puts the candidates of a
list that `translate --n-best` has written into a new order.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flax_transformer.commands.command_line import EnsembleArguments, parse_decoding_arguments
from flax_transformer.commands.text_files import open_output, read_lines
from flax_transformer.errors import require

if TYPE_CHECKING:  # the libraries take seconds to load, which --help should not
    from flax_transformer.translation.n_best_lists import Candidate, Ranked
    from flax_transformer.translation.pair_scores import PairScore
    from flax_transformer.translation.trained_model import TrainedModel

_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class ScoreArguments(EnsembleArguments):
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
    Each of its lines comes out with " ||| log probability" added. With --weight it may also be of
    JSON, as by translate --output-format jsonl."""
    weight: float | None = None
    """With --n-best: write the list anew, the best candidates of each line first. A score is then
    (1 - weight) times that of the list, plus weight times this model's own, which is the log
    probability over the length penalty."""
    tag: str = ""
    """A tag of the training text to put before every source, as by translate --tag."""
    output: Path | None = None
    """File for the scores instead of standard output; it appears once all are done."""
    output_format: Literal["text", "jsonl"] = "text"
    """text: log probability and number of tokens, end symbol included, with a tab between, or the
    list that --weight has put in order; jsonl: an object a line, with every token and its log
    probability too."""


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
            f"perplexity {math.exp(-mean):.3f} (e to the power of minus that)"
        )


def main(words: Sequence[str]) -> None:
    arguments, config = parse_decoding_arguments(ScoreArguments, words)
    _check(arguments)
    # Read and checked in full before the model is loaded.
    sources = read_lines(arguments.source, "--source")
    candidates: list[Candidate] = []
    if arguments.n_best is None:
        texts, targets = sources, _read_targets(arguments, len(sources))
        lines = targets
    else:
        lines, candidates = _read_list(arguments, len(sources))
        texts = [sources[candidate.line - 1] for candidate in candidates]
        targets = [candidate.text for candidate in candidates]

    from flax_transformer.translation.n_best_lists import rerank
    from flax_transformer.translation.search import scoring_of
    from flax_transformer.translation.trained_model import TrainedModel

    with open_output(arguments.output) as write:
        model = TrainedModel(arguments.workdir, config, others=arguments.ensemble)
        for note in model.notes:
            print(note, file=sys.stderr)
        totals = Totals()
        if arguments.weight is not None:
            scores = [
                one
                for chunk in _score(model, texts, targets, arguments.tag, totals)
                for one in chunk
            ]
            scoring = scoring_of(config)
            found = rerank(candidates, scores, arguments.weight, scoring)
            as_text = _list_as_json if arguments.output_format == "jsonl" else _list_as_text
            write("".join(as_text(number, ranked) for number, ranked in found.items()))
        else:
            format_score, remaining = _format(arguments), iter(lines)
            for chunk in _score(model, texts, targets, arguments.tag, totals):
                write("".join(format_score(next(remaining), one) for one in chunk))
    print(totals.describe(), file=sys.stderr)


def _check(arguments: ScoreArguments) -> None:
    require(
        (arguments.target is None) != (arguments.n_best is None),
        "give either --target or --n-best",
    )
    weight = arguments.weight
    require(
        weight is None or arguments.n_best is not None,
        f"--weight is {weight}, but there is no list to put in order: give --n-best",
    )
    require(weight is None or 0 <= weight <= 1, f"--weight is {weight}, but is a share: use 0 to 1")
    require(
        arguments.n_best is None or weight is not None or arguments.output_format == "text",
        "--n-best without --weight writes text: leave out --output-format jsonl",
    )


def _read_targets(arguments: ScoreArguments, sources: int) -> list[str]:
    """The lines of --target, as many as there are sources."""
    assert arguments.target is not None
    lines = read_lines(arguments.target, "--target")
    require(
        len(lines) == sources,
        f"{arguments.source} has {sources:,} lines and {arguments.target} {len(lines):,}: give one "
        "translation for each line",
    )
    return lines


def _read_list(arguments: ScoreArguments, sources: int) -> tuple[list[str], list[Candidate]]:
    """The lines of --n-best, and the candidates in them, for a text of so many lines."""
    from flax_transformer.translation.n_best_lists import is_json, parse_n_best, require_scores

    assert arguments.n_best is not None
    lines = read_lines(arguments.n_best, "--n-best")
    require(
        arguments.weight is not None or not is_json(lines),
        f"{arguments.n_best} is of JSON, which --weight puts in order: give that, too",
    )
    candidates = parse_n_best(arguments.n_best, lines, sources)
    if arguments.weight is not None:
        require_scores(arguments.n_best, candidates)
    return lines, candidates


def _score(
    model: TrainedModel,
    sources: Sequence[str],
    targets: Sequence[str],
    tag: str,
    totals: Totals,
) -> Iterator[list[PairScore]]:
    """Yields the scores of all pairs, so many at a time, and adds them to the `totals`."""
    from tqdm import tqdm

    with tqdm(total=len(targets), desc="Scoring", unit=" pairs", disable=None) as bar:
        for first in range(0, len(targets), _AT_ONCE):
            chunk = slice(first, first + _AT_ONCE)
            tags = [tag] * len(targets[chunk])
            scores = model.pair_scores(sources[chunk], targets[chunk], tags=tags)
            totals.add(scores)
            yield scores
            bar.update(len(scores))


def _list_as_text(number: int, ranked: Sequence[Ranked]) -> str:
    """The candidates of one line, a line each."""
    return "".join(f"{number} ||| {one.candidate.text} ||| {one.score:.4f}\n" for one in ranked)


def _list_as_json(number: int, ranked: Sequence[Ranked]) -> str:
    """The candidates of one line, in one line."""
    best, *others = (
        {"translation": one.candidate.text, "score": round(one.score, 4), **_tokens(one.probable)}
        for one in ranked
    )
    found = {"line": number, **best, "alternatives": others}
    return json.dumps(found, ensure_ascii=False) + "\n"


def _format(arguments: ScoreArguments) -> Callable[[str, PairScore], str]:
    if arguments.n_best is not None:
        return lambda line, score: f"{line} ||| {score.total:.4f}\n"
    if arguments.output_format == "jsonl":
        return lambda line, score: _as_json(score)
    return lambda line, score: f"{score.total:.4f}\t{len(score.tokens)}\n"


def _as_json(score: PairScore) -> str:
    found = {"log_probability": round(score.total, 4), **_tokens(score)}
    return json.dumps(found, ensure_ascii=False) + "\n"


def _tokens(score: PairScore) -> dict[str, Any]:
    logs = [round(each, 4) for each in score.log_probabilities]
    return {"tokens": score.tokens, "log_probabilities": logs}
