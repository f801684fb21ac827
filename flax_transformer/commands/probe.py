"""Measures what a trained model knows against what is true:

    flax-transformer probe --workdir runs/quickstart

Compares its attention with the true alignment of words, and learns from its hidden states, layer by
layer, to tell what each word is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flax_transformer.commands.command_line import DecodingArguments, parse_decoding_arguments
from flax_transformer.commands.inspect import make_folder
from flax_transformer.config import Builtin, Config, TransformerConfig
from flax_transformer.errors import UserError, require
from flax_transformer.workdir import INSPECTION

if TYPE_CHECKING:  # the libraries take seconds to load, which --help should not
    from flax_transformer.data.builtin.analysis import AnalysedPair
    from flax_transformer.inspection.probing import ProbeScore
    from flax_transformer.translation.trained_model import TrainedModel

_NAME = "probing"


@dataclass(frozen=True, kw_only=True)
class ProbeArguments(DecodingArguments):
    """Measures what a trained model knows of words, for runs on the built-in corpus, whose grammar
    tells the truth about every word.

    How well attention finds the words that are translated; and what linear probes find in the
    hidden states of each layer: position, word, part of speech, gender and number, each beside a
    control task.
    """

    sentences: int = 2000
    """Pairs of the train split from which the probes learn."""
    test_sentences: int = 500
    """Pairs of the test split on which attention and probes are measured; it has 500."""
    output: Path | None = None
    """Folder for probing.json and the picture; by default inspection/ in the work directory."""


def main(words: Sequence[str]) -> None:
    arguments, config = parse_decoding_arguments(ProbeArguments, words)
    _check(arguments, config)
    folder = arguments.output or arguments.results / INSPECTION
    make_folder(folder)

    from flax_transformer.data.builtin.analysis import analysed_pairs
    from flax_transformer.files.whole_file import write_whole
    from flax_transformer.inspection import probe_report as report
    from flax_transformer.inspection.alignment_error import alignment_scores, diagonal_score
    from flax_transformer.translation.trained_model import TrainedModel

    model = TrainedModel(arguments.workdir, config)
    for note in model.notes:
        print(note, file=sys.stderr)
    test = analysed_pairs("test", arguments.test_sentences)
    alignment, diagonal = alignment_scores(model, test, "Aligning"), diagonal_score(test)
    print(f"Attention to the source, against the true alignment of {len(test):,} test pairs:")
    print(report.describe_alignment(alignment, diagonal), flush=True)
    probes = _probe(model, arguments.sentences, test)
    origin = {
        "workdir": str(arguments.workdir),
        "checkpoints": list(model.steps),
        "learn_pairs": arguments.sentences,
        "test_pairs": len(test),
    }
    path = folder / f"{_NAME}.json"
    write_whole(path, report.as_json(alignment, diagonal, probes, origin))
    print(f"\nall figures: {path}")
    if probes:
        picture = report.plot_probes(probes)
        for ending in ("svg", "png"):
            picture.save(folder / f"{_NAME}.{ending}")
        print(f"their picture: {folder / _NAME}.png")


def _check(arguments: ProbeArguments, config: Config) -> None:
    for flag, value in (
        ("--sentences", arguments.sentences),
        ("--test-sentences", arguments.test_sentences),
    ):
        require(value > 0, f"{flag} is {value}: use at least 1")
    if not isinstance(config.data, Builtin):
        raise UserError(
            f"data.kind of {arguments.workdir} is {type(config.data).__name__}, but only the "
            "grammar of the built-in corpus tells what its words are: probe a run on that corpus, "
            "such as one of configs/quickstart.py"
        )


def _probe(
    model: TrainedModel, sentences: int, test: Sequence[AnalysedPair]
) -> Sequence[ProbeScore]:
    """Returns and prints what probes find; nothing for a model without layers to probe."""
    if not isinstance(model.config.model, TransformerConfig):
        print(
            "\nNo probes: they read between the layers of a Transformer, which this model is not."
        )
        return []

    from flax_transformer.data.builtin.analysis import analysed_pairs
    from flax_transformer.inspection.probe_report import describe_probes
    from flax_transformer.inspection.probing import probe

    scores = probe(model, analysed_pairs("train", sentences), test, "Reading")
    print(
        f"\nLinear probes, learnt from {sentences:,} pairs, on words of {len(test):,} others: "
        "accuracy,\nand by how much it is above that of the control task (random labels for words):"
    )
    print(describe_probes(scores))
    return scores
