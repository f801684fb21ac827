"""Removes attention heads that a trained model can do without:

    flax-transformer prune --workdir runs/base --output runs/base_pruned

Says first what each head is worth, and writes the smaller model to a work directory of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from flax_transformer.commands.command_line import (
    DecodingArguments,
    move_corpus,
    parse_decoding_arguments,
)
from flax_transformer.config import TransformerConfig
from flax_transformer.errors import require
from flax_transformer.files.whole_folder import require_no_folder
from flax_transformer.runtime.invocation import how_to_start

if TYPE_CHECKING:  # the libraries take seconds to load, which --help should not
    from flax_transformer.inspection.pruning import Pruning
    from flax_transformer.translation.trained_model import TrainedModel


@dataclass(frozen=True, kw_only=True)
class PruneArguments(DecodingArguments):
    """Measures what each attention head of a Transformer is worth, and removes those worth least.

    The model without them is written to a work directory of its own, whole or not at all. The one
    in --workdir stays as it is.
    """

    output: Path
    """Work directory for the smaller model, which must not exist yet. What the heads were worth
    lies there too, in heads.json and heads.png."""
    max_loss: float = 0.5
    """Most points of BLEU that may be lost, on the sentences that the heads are measured on."""
    heads: int | None = None
    """Heads to leave, of all layers and attentions together, whatever BLEU is lost."""
    sentences: int = 500
    """Most sentences of the validation split to measure heads on. A head takes as long as they take
    to translate; with --beam-size 1 it takes less."""
    data_directory: Annotated[str | None, tyro.conf.arg(name="data.directory")] = None
    """Folder where the run's corpus lies now, if it was moved since it was trained on."""


def main(words: Sequence[str]) -> None:
    arguments, config = parse_decoding_arguments(PruneArguments, words)
    require(arguments.sentences > 0, f"--sentences is {arguments.sentences}: use at least 1")
    require_no_folder(arguments.output)

    from flax_transformer.data.corpus import open_corpus
    from flax_transformer.inspection.head_report import describe_importance, describe_stages
    from flax_transformer.inspection.heads import MaskedModel, measure_heads
    from flax_transformer.inspection.pruned_model import write_pruned
    from flax_transformer.inspection.pruning import remove_heads
    from flax_transformer.translation.trained_model import TrainedModel

    corpus = open_corpus(move_corpus(config, arguments.data_directory).data)
    sources, references = zip(*corpus.split(corpus.validation)[: arguments.sentences], strict=True)
    model = TrainedModel(arguments.workdir, config)
    for note in model.notes:
        print(note, file=sys.stderr)
    masked = MaskedModel(model, sources, references)
    print(f"Masking the heads of {arguments.workdir}, on {len(sources):,} sentences", flush=True)
    importance = measure_heads(masked)
    print(describe_importance(importance), flush=True)
    pruning = remove_heads(masked, importance, max_loss=arguments.max_loss, heads=arguments.heads)
    print(describe_stages(pruning), flush=True)
    write_pruned(arguments.output, model, importance, pruning)
    _report(arguments, model, pruning)


def _report(arguments: PruneArguments, model: TrainedModel, pruning: Pruning) -> None:
    """Says what was removed, and what to type next."""
    from flax_transformer.config.json import load_config
    from flax_transformer.models.heads import keep_heads
    from flax_transformer.training.state import count_parameters
    from flax_transformer.workdir import CONFIG_FILE

    whole, chosen = pruning.stages[0], pruning.chosen
    before, after = (
        count_parameters(params)
        for params in (model.params, keep_heads(model.params, chosen.masks))
    )
    pruned = load_config(arguments.output / CONFIG_FILE).model
    assert isinstance(pruned, TransformerConfig)
    slots = {f"--model.{kind}-heads": getattr(pruned, f"{kind}_heads") for kind in chosen.masks}
    flags = "".join(f" {flag} {count}" for flag, count in slots.items() if count is not None)
    print(
        f"{whole.left - chosen.left} of {whole.left} heads removed: BLEU {whole.bleu:.2f} -> "
        f"{chosen.bleu:.2f}, {before:,} -> {after:,} parameters\n"
        f"The smaller model lies in {arguments.output}. Next: score it on other text,\n"
        f"  {how_to_start('evaluate')} --workdir {arguments.output}\n"
        "or train it further, with the config of its run,\n"
        f"  {how_to_start('train')} --config ... --workdir {arguments.output}_tuned "
        f"--start-from {arguments.output}{flags}"
    )
