"""Shows what is inside a trained model: flax-transformer inspect --workdir runs/quickstart

Draws where it looks, how it searches, how it learned and what it is made of, and writes a page that
shows all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flax_transformer.commands.command_line import (
    DecodingArguments,
    parse_decoding_arguments,
)
from flax_transformer.config import Config
from flax_transformer.errors import UserError, require
from flax_transformer.runtime.invocation import how_to_start
from flax_transformer.workdir import INSPECTION

if TYPE_CHECKING:  # the libraries take seconds to load, which --help should not
    from flax_transformer.inspection.pictures import Gallery

_SHOWN_WORDS = range(5, 15)
"""Of a sentence of the test split that is taken by itself: more make small pictures."""


@dataclass(frozen=True, kw_only=True)
class InspectArguments(DecodingArguments):
    """Draws what is inside a trained model, as SVG and PNG, and writes a page that shows all of it.

    Where it looks (every layer and head), how it searches, its learning curves and schedule, its
    position encodings, and its parts with their parameters.
    """

    source: tuple[str, ...] = ()
    """Sentences to look at, such as: --source "The black cat sleeps." "A dog." By default some of
    the run's test split."""
    target: tuple[str, ...] = ()
    """What the model is made to write for each --source; by default its own translations."""
    sentences: int = 3
    """Without --source: how many sentences of the test split."""
    output: Path | None = None
    """Folder for the pictures; by default inspection/ in the work directory."""
    compare: tuple[Path, ...] = ()
    """Work directories of other runs, whose learning curves are drawn in the same picture."""


def main(words: Sequence[str]) -> None:
    arguments, config = parse_decoding_arguments(InspectArguments, words)
    _check(arguments)
    folder = arguments.output or arguments.results / INSPECTION
    make_folder(folder)
    sources = list(arguments.source) or test_sentences(config, arguments.sentences)

    from flax_transformer.inspection.pictures import Sentence, draw_gallery
    from flax_transformer.translation.trained_model import TrainedModel

    model = TrainedModel(arguments.workdir, config)
    for note in model.notes:
        print(note, file=sys.stderr)
    targets = arguments.target or [None] * len(sources)
    sentences = [Sentence(*pair) for pair in zip(sources, targets, strict=True)]
    print(f"Drawing {len(sentences)} sentence(s) and the run into {folder}", flush=True)
    gallery = draw_gallery(model, sentences, folder, compare=arguments.compare)
    _report(arguments, folder, gallery)


def _check(arguments: InspectArguments) -> None:
    sources, targets = arguments.source, arguments.target
    require(arguments.sentences > 0, f"--sentences is {arguments.sentences}: use at least 1")
    require(
        not targets or len(targets) == len(sources),
        f"there are {len(sources)} of --source and {len(targets)} of --target: give a target for "
        "each source, or none",
    )
    for flag, texts in (("--source", sources), ("--target", targets)):
        for number, text in enumerate(texts, start=1):
            require(bool(text.strip()), f"{flag} number {number} is empty: give it some words")
    for other in arguments.compare:
        if not (other / "metrics.jsonl").is_file():
            raise UserError(f"--compare {other} has no metrics.jsonl: name the folder of a run")


def make_folder(folder: Path) -> None:
    """Creates `folder` before all the work; raises `UserError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"--output {folder} cannot be a folder: {reason}: name another one"
        ) from None


def test_sentences(config: Config, count: int) -> list[str]:
    """Returns sentences of the first test split, or of the validation split where there is none:
    the first ones of a length that pictures have room for."""
    from flax_transformer.data.corpus import Corpus, open_corpus

    try:
        corpus = open_corpus(config.data)
        split = next(iter(corpus.test_splits), Corpus.validation)
        sources = [source for source, _ in corpus.split(split) if source.strip()]
    except UserError as error:
        raise UserError(
            f"{error}\nOr name sentences to look at, which need no corpus: --source ..."
        ) from None
    fitting = [source for source in sources if len(source.split()) in _SHOWN_WORDS]
    others = [source for source in sources if len(source.split()) not in _SHOWN_WORDS]
    return [*fitting, *others][:count]


def _report(arguments: InspectArguments, folder: Path, gallery: Gallery) -> None:
    """Says what was written, what is lacking, and what to type next."""
    for note in gallery.notes:
        print(note)
    if gallery.missing:
        print(
            f"warning: no installed font has {gallery.missing[:20]}: in the PNG files boxes stand "
            "for what is missing; in the SVG files the reader's own fonts draw it. Install a font "
            "that has it, such as Noto Sans CJK, and give the same command again",
            file=sys.stderr,
        )
    names = [path.name for path in gallery.files]
    pictures = sum(name.endswith(".svg") for name in names)
    print(f"Written to {folder}: {pictures} pictures, each as SVG and PNG, and")
    for path in gallery.files:
        if path.suffix == ".html":
            print(f"  {path}")
    translate = how_to_start("translate")
    print(
        "Next: open the page in a browser, or look at a sentence of your own,\n"
        f'  {how_to_start("inspect")} --workdir {arguments.workdir} --source "..."\n'
        f'or translate it,\n  echo "..." | {translate} --workdir {arguments.workdir}'
    )
