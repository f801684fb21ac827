"""Settings of the vocabulary that source and target share."""

from dataclasses import dataclass
from typing import Literal

from flax_transformer.config.setting_types import require_types
from flax_transformer.errors import require, require_not_negative, require_positive

SMALLEST_VOCABULARY = 300
"""Pieces: 260 of them are bytes and special symbols."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The SentencePiece vocabulary that source and target share (Section 5.1)."""

    vocabulary_size: int = 37_000
    """Pieces, with the 256 bytes and the 4 special symbols."""
    training_sentences: int = 10_000_000
    """Most sentences that the vocabulary is learned from; a larger corpus is sampled."""
    normalization: Literal["nfc", "identity", "nfkc", "nmt_nfkc"] = "nfc"
    """What is made uniform before splitting. nfc: white space of every kind and length becomes one
    space, characters without width are dropped, a letter with accents becomes one character; nfkc
    and nmt_nfkc: SentencePiece's own, which unite more characters; identity: nothing."""
    character_coverage: float = 1.0
    """Share of the text whose characters get pieces, the most frequent first. A word with another
    character is carried over as it is, as is one with characters that the training text lacks."""
    dropout: float = 0.0
    """BPE-dropout: probability of skipping a merge, so that training sees a sentence split in
    different ways (Provilkov et al. 2020). It helps small corpora; the paper has none."""
    samples: int = 16
    """With dropout: how many different splits of all training text into tokens are drawn."""
    added_pieces: int = 0
    """With training.start_from: pieces that the other run's vocabulary gets at its end, those that
    save most tokens in this run's training text."""

    def __post_init__(self):
        require_types(self, "tokenizer")
        require(
            self.vocabulary_size >= SMALLEST_VOCABULARY,
            f"tokenizer.vocabulary_size is {self.vocabulary_size}, but 260 places are taken by "
            f"bytes and special symbols: use at least {SMALLEST_VOCABULARY}",
        )
        require_positive(self, "tokenizer", "training_sentences", "samples")
        require_not_negative(self, "tokenizer", "added_pieces")
        require(
            0.98 <= self.character_coverage <= 1,
            f"tokenizer.character_coverage is {self.character_coverage}, but must be in [0.98, 1]",
        )
        require(
            0 <= self.dropout < 1, f"tokenizer.dropout is {self.dropout}, but must be in [0, 1)"
        )
