"""Settings of the search for translations."""

from dataclasses import dataclass
from typing import Literal

from flax_transformer.config.setting_types import require_types
from flax_transformer.errors import require, require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """Beam search (Section 6.1)."""

    beam_size: int = 4
    """Hypotheses kept at each position; 1 is greedy search."""
    length_normalization: Literal["gnmt", "power"] = "gnmt"
    """What a hypothesis' log probability is divided by: ((5 + length) / 6)^length_penalty (Wu et
    al. 2016, and the paper), or length^length_penalty, as in fairseq, Marian and CTranslate2."""
    length_penalty: float = 0.6
    """Exponent of length_normalization; 0 leaves log probabilities as they are."""
    coverage_penalty: float = 0.0
    """Beta of Wu et al. 2016, equation 14: how much a hypothesis loses for source tokens that its
    attention passed over. It counts where finished hypotheses are compared. 0 needs no
    attention."""
    extra_length: int = 50
    """Target tokens allowed beyond the number of source tokens. With learned positions there are no
    more than batch.target_length in all, as no position beyond it has been learned."""
    average_checkpoints: int = 5
    """Latest checkpoints whose parameters are averaged; 1 takes the last as it is."""
    checkpoint: Literal["auto", "average", "best", "latest"] | int = "auto"
    """Which parameters translate: average, the mean of the last average_checkpoints; best, by
    validation BLEU; latest; or the number of a step. auto takes best where training ended because
    BLEU no longer rose, else average."""
    batch_tokens: int = 4096
    """Source tokens, padding included, that are translated at a time."""
    max_source_length: int = 256
    """Source tokens in one piece, end symbol included; longer lines are translated in pieces. With
    learned positions no more than batch.source_length."""
    split_sentences: bool = True
    """Whether lines of several sentences are translated sentence by sentence where they are longer
    than almost all lines that training saw."""

    def __post_init__(self):
        require_types(self, "decoding")
        require_positive(
            self, "decoding", "beam_size", "extra_length", "average_checkpoints", "batch_tokens",
            "max_source_length",
        )  # fmt: skip
        require_not_negative(self, "decoding", "length_penalty", "coverage_penalty")
        require(
            self.max_source_length >= 2,
            "decoding.max_source_length is 1, but must be at least 2: a token and the end symbol",
        )
        require(
            isinstance(self.checkpoint, str) or self.checkpoint >= 0,
            f"decoding.checkpoint is {self.checkpoint}, but the number of a step is at least 0",
        )
