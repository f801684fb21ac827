"""Translates lines of text: python translate.py --workdir runs/quickstart < source > target

One line out for every line in, in order and as soon as it is known: it may also be typed to. With
--input and --output, from file to file.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flax_transformer.commands.command_line import (
    TranslatingArguments,
    parse_decoding_arguments,
)
from flax_transformer.commands.text_files import open_input, open_output
from flax_transformer.commands.translation_lines import FormatChunk, as_json, as_text
from flax_transformer.errors import UserError

if TYPE_CHECKING:  # the libraries take seconds to load, which --help should not
    from flax_transformer.translation.line_reader import LineReader
    from flax_transformer.translation.requests import Requests
    from flax_transformer.translation.trained_model import TrainedModel


@dataclass(frozen=True, kw_only=True)
class TranslateArguments(TranslatingArguments):
    """Translates standard input, text with a sentence a line, to standard output.

    Text is UTF-8, or UTF-16 with a byte order mark, and may be compressed by gzip or xz. Every
    line in gives one line out, in the same order; an empty one gives an empty one. Lines have at
    most 1 MiB.
    """

    input: Path | None = None
    """File to translate instead of standard input (compressed by gzip or xz, too)."""
    output: Path | None = None
    """File for the translations instead of standard output; it appears once all are done."""
    input_format: Literal["text", "jsonl"] = "text"
    """jsonl: a line is a JSON object with a "source", and with a "prefix", a "tag" or a list of
    "required" phrases where it has its own."""
    prefix: str = ""
    """What every translation must begin with. A space after the last word says that it is whole."""
    tag: str = ""
    """A tag of the training text, such as <bt>, to put before every line: translate it like those
    that had it."""
    prefix_file: Path | None = None
    """File with a line for each line of text: what its translation must begin with; empty where it
    may begin with anything."""
    output_format: Literal["text", "jsonl"] = "text"
    """jsonl: a line is a JSON object with the translation, its score, its tokens with their log
    probabilities, and the source token that each renders; with --n-best also the others."""
    n_best: int | None = None
    """Print this many translations of each line, all different, best first, a line each:
    "line number ||| translation ||| score". Line numbers count from 1; a score is the log
    probability over the length penalty, plus the coverage penalty. At most --beam-size, and fewer
    where there are fewer."""


def main(words: Sequence[str]) -> None:
    arguments, config = parse_decoding_arguments(TranslateArguments, words)
    if arguments.mbr is not None:
        from flax_transformer.translation.minimum_risk import sampling_config

        config = sampling_config(config, arguments.mbr)
    n_best, beam_size = arguments.n_best, config.decoding.beam_size
    if arguments.prefix_file and (arguments.prefix or arguments.input_format == "jsonl"):
        raise UserError(
            "--prefix-file has a prefix for each line: leave out --prefix and --input-format jsonl"
        )
    if n_best is not None and not 1 <= n_best <= beam_size:
        raise UserError(f"--n-best is {n_best}, but must be from 1 to --beam-size {beam_size}")

    from flax_transformer.translation.line_reader import LineReader
    from flax_transformer.translation.trained_model import TrainedModel

    format_lines = as_json if arguments.output_format == "jsonl" else as_text
    format_chunk = partial(format_lines, n_best=n_best)
    with open_output(arguments.output) as write:
        # Before the model, so that lines are there when it is ready.
        descriptor, name = open_input(arguments.input)
        lines = LineReader(descriptor, name)
        model = TrainedModel(
            arguments.workdir,
            config,
            others=arguments.ensemble,
            risk_metric=arguments.risk_metric,
        )
        for note in model.notes:
            print(note, file=sys.stderr)
        translate(model, lines, read_requests(lines, name, arguments), write, format_chunk)
    if cut := model.translator.counts.cut_lines:
        print(describe_cut(cut, model), file=sys.stderr)
    if untranslated := model.translator.counts.untranslated:
        from flax_transformer.translation.search import describe_untranslated

        print(describe_untranslated(untranslated, config.decoding), file=sys.stderr)


def describe_cut(count: int, model: TrainedModel) -> str:
    """Why `count` lines were translated in pieces, and how to have it otherwise."""
    from flax_transformer.decoding.lengths import longest_source

    reason = f"of more than {longest_source(model.config)} tokens"
    advice = ""
    trained = model.progress.trained_lengths
    if trained and model.config.decoding.split_sentences:
        reason += (
            f", or of several sentences beyond what training saw (mostly {trained.sentences} "
            f"sentence(s) and {trained.tokens} tokens in a line at most),"
        )
        advice = "; --no-split-sentences keeps sentences together"
    return f"{count:,} line(s) {reason} were translated in pieces{advice}"


class PrefixFile:
    """The prefixes of all lines, as many at a time as are asked for."""

    def __init__(self, path: Path):
        from flax_transformer.translation.line_reader import LineReader

        self._name = f"--prefix-file {path}"
        chunks = LineReader(*open_input(path, "--prefix-file")).chunks()
        self._lines = itertools.chain.from_iterable(chunks)

    def take(self, count: int) -> list[str]:
        prefixes = list(itertools.islice(self._lines, count))
        if len(prefixes) < count:
            raise UserError(
                f"{self._name} has fewer lines than the text: give one for each, empty where its "
                "translation may begin with anything"
            )
        return prefixes

    def end(self) -> None:
        if next(self._lines, None) is not None:
            raise UserError(f"{self._name} has more lines than the text: is it that of another?")


def read_requests(
    lines: LineReader, name: str, arguments: TranslateArguments
) -> Iterator[Requests]:
    """What is to be translated, as many lines at a time as have come from the input `name`."""
    from flax_transformer.translation.requests import parse_requests, plain_requests

    prefixes = PrefixFile(arguments.prefix_file) if arguments.prefix_file else None
    of_all = arguments.prefix, arguments.tag
    first = 1
    for chunk in lines.chunks():
        if arguments.input_format == "jsonl":
            yield parse_requests(chunk, name, first, *of_all)
        elif prefixes:
            yield plain_requests(chunk, *of_all)._replace(prefixes=prefixes.take(len(chunk)))
        else:
            yield plain_requests(chunk, *of_all)
        first += len(chunk)
    if prefixes:
        prefixes.end()


def translate(
    model: TrainedModel,
    lines: LineReader,
    requests: Iterable[Requests],
    write: Callable[[str], None],
    format_chunk: FormatChunk,
) -> None:
    """Writes the translation of each line as soon as it is known."""
    from tqdm import tqdm

    first = 1
    # A bar between typed lines would be in the way.
    hidden = True if lines.typed else None
    with tqdm(total=lines.total, desc="Translating", unit=" lines", disable=hidden) as bar:
        for chunk in requests:
            progress = None if lines.typed else f"from line {first:,}"
            translations = model.search(
                chunk.lines,
                prefixes=chunk.prefixes,
                tags=chunk.tags,
                required=chunk.required,
                progress=progress,
            )
            write(format_chunk(model, translations, first))
            first += len(chunk.lines)
            bar.update(len(chunk.lines))
