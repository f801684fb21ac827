"""What the comparison of architectures is told, and the settings that all systems share."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from benchmarks.recording import RECORDS, Recorded
from flax_transformer.commands.command_line import parse_arguments
from flax_transformer.config import (
    BatchConfig,
    Config,
    DecodingConfig,
    TextFiles,
    TokenizerConfig,
    TrainingConfig,
    TransformerConfig,
)
from flax_transformer.errors import require, require_positive

System = Literal[
    "lstm_none", "lstm_dot", "lstm_general", "lstm_concat", "lstm_multi_head", "transformer"
]
"""LSTMs by the score function of their attention."""

TRAINING = TrainingConfig(
    steps=1_000_000,  # it is the time that ends
    log_every=5,
    checkpoint_every=20,
    validation_sentences=200,
)


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Trains recurrent models and the Transformer alike, and compares them."""

    data: TextFiles = field(
        default_factory=lambda: TextFiles(directory=".", source_language="en", target_language="fr")
    )
    workdir: Path = Path("runs/compare")
    """Folder of all runs, one in it for each system."""
    systems: tuple[System, ...] = get_args(System)
    """What to train, in this order; LSTMs by the score function of their attention."""
    minutes: float = 8.0
    """Time in training steps for each system."""
    validations: int = 10
    """Points of each learning curve."""
    pairs: int | None = None
    """Training pairs, drawn at random; by default the whole corpus."""
    further_tests: tuple[Path, ...] = ()
    """Folders with test files in the same languages, such as test.en and test.fr."""
    seed: int = 0
    """Of the drawn pairs, parameters, data order and dropout."""
    target_loss: float | None = None
    """Validation loss to which seconds are counted; by default the worst system's last."""
    lstm_dropout: float = 0.2
    """Dropout of the LSTMs; the Transformer's is --model.dropout."""
    sentence: str = "The old man who lives near the station does not like cold coffee."
    """Source of the alignments that are drawn."""
    translation: str = "Le vieil homme qui habite près de la gare n'aime pas le café froid."
    """Target of the alignments."""
    record: Path = RECORDS / "compare" / "tatoeba" / "record.json"
    tokenizer: TokenizerConfig = field(
        default_factory=lambda: TokenizerConfig(vocabulary_size=8000)
    )
    batch: BatchConfig = field(
        default_factory=lambda: BatchConfig(rows=64, source_length=40, target_length=48)
    )
    model: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(
            num_encoder_layers=3,
            num_decoder_layers=3,
            d_model=192,
            num_heads=6,
            d_ff=768,
            unroll_layers=3,
        )
    )
    decoding: DecodingConfig = field(default_factory=lambda: DecodingConfig(max_source_length=512))

    def __post_init__(self):
        require_positive(self, "the comparison", "minutes", "validations")
        require(self.pairs is None or self.pairs > 0, f"--pairs is {self.pairs}: use at least 1")
        require(bool(self.systems), "--systems names none: leave it out for all")


def parse(words: Sequence[str]) -> Arguments:
    return parse_arguments(Arguments, words, Arguments())


def shared_config(arguments: Arguments, data: TextFiles) -> Config:
    """Returns the settings of all systems, with the Transformer for a model; `data`: the corpus, or
    a part of it."""
    return Config(
        data=data,
        tokenizer=arguments.tokenizer,
        batch=arguments.batch,
        model=arguments.model,
        training=dataclasses.replace(TRAINING, seed=arguments.seed),
        decoding=arguments.decoding,
    )
