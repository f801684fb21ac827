"""Settings of the search for translations."""

from dataclasses import dataclass
from typing import Literal

from flax_transformer.config.setting_types import require_types
from flax_transformer.errors import require, require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """Beam search (Section 6.1), or sampling."""

    beam_size: int = 4
    """Hypotheses kept at each position; 1 is greedy search. With sampling, the samples drawn."""
    length_normalization: Literal["gnmt", "power"] = "gnmt"
    """What a hypothesis' log probability is divided by: ((5 + length) / 6)^length_penalty (Wu et
    al. 2016, and the paper), or length^length_penalty, as in fairseq, Marian and CTranslate2."""
    length_penalty: float = 0.6
    """Exponent of length_normalization; 0 leaves log probabilities as they are."""
    coverage_penalty: float = 0.0
    """Beta of Wu et al. 2016, equation 14: how much a hypothesis loses for source tokens that its
    attention passed over. It counts where finished hypotheses are compared. 0 needs no
    attention."""
    diversity_groups: int = 1
    """Groups of beams, each of beam_size / diversity_groups hypotheses, that are searched for apart
    and avoid each other's tokens (diverse beam search, Vijayakumar et al. 2018)."""
    diversity_strength: float = 0.5
    """With diversity_groups: what a token's log probability loses, where a group chooses, for each
    hypothesis of earlier groups that has it at the same position."""
    sampling: bool = False
    """Whether translations are drawn from the model's probabilities, independently of each other,
    instead of searched for. Their scores are log probabilities, without any penalty; the same text
    may come twice."""
    temperature: float = 1.0
    """With sampling: what the logits are divided by. Below 1, probable tokens become more
    probable."""
    top_k: int = 0
    """With sampling: draw from that many of the most probable tokens; 0 draws from all."""
    top_p: float = 1.0
    """With sampling: draw from the fewest most probable tokens that together have this share of the
    probability (Holtzman et al. 2020); 1 draws from all."""
    seed: int = 0
    """With sampling: another seed draws others. What is drawn for a sentence depends on the seed
    and its tokens, not on the lines around it."""
    min_length: int = 0
    """Fewest target tokens, end symbol included, of a sentence that may be as long; 0 and 1 allow
    any."""
    no_repeat_ngram: int = 0
    """No sequence of that many tokens comes twice in a translation; 0 allows any."""
    forbidden: tuple[str, ...] = ()
    """Words and phrases that translations do not hold, each in the pieces that the vocabulary
    splits it into."""
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
        require_not_negative(self, "decoding", "min_length", "no_repeat_ngram")
        require(
            all(map(str.strip, self.forbidden)),
            "decoding.forbidden has an empty phrase: leave it out",
        )
        self._check_diversity()
        self._check_sampling()
        require(
            self.max_source_length >= 2,
            "decoding.max_source_length is 1, but must be at least 2: a token and the end symbol",
        )
        require(
            isinstance(self.checkpoint, str) or self.checkpoint >= 0,
            f"decoding.checkpoint is {self.checkpoint}, but the number of a step is at least 0",
        )

    @property
    def is_one_beam(self) -> bool:
        """Whether it is one beam search, of which a record tells everything."""
        return not self.sampling and self.diversity_groups == 1

    def _check_diversity(self) -> None:
        require_positive(self, "decoding", "diversity_groups")
        require_not_negative(self, "decoding", "diversity_strength")
        require(
            self.beam_size % self.diversity_groups == 0,
            f"decoding.diversity_groups ({self.diversity_groups}) must divide decoding.beam_size "
            f"({self.beam_size})",
        )
        self._require_unread("diversity_strength", self.diversity_groups > 1, "diversity_groups")

    def _require_unread(self, name: str, is_read: bool, other: str) -> None:
        """Raises `UserError` where a setting is set that only `other` has any use for."""
        value = getattr(self, name)
        require(
            is_read or value == getattr(DecodingConfig, name),
            f"decoding.{name} is {value}, but means nothing without decoding.{other}: set that too",
        )

    def _check_sampling(self) -> None:
        require_positive(self, "decoding", "temperature")
        require_not_negative(self, "decoding", "top_k", "seed")
        require(
            0 < self.top_p <= 1,
            f"decoding.top_p is {self.top_p}, but must be above 0 and at most 1",
        )
        for name in ("temperature", "top_k", "top_p", "seed"):
            self._require_unread(name, self.sampling, "sampling")
        for name, without in (("coverage_penalty", 0), ("diversity_groups", 1)):
            value = getattr(self, name)
            require(
                not self.sampling or value == without,
                f"decoding.{name} is {value}, but decoding.sampling searches for nothing: leave "
                "one of them out",
            )
