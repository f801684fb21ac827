"""Settings of the Transformer, and what follows from them.

`RecurrentConfig` (recurrent.py) answers the same questions, under the same names.
"""

import math
from dataclasses import dataclass
from typing import Literal

from flax_transformer.config.conventions import Conventions
from flax_transformer.config.setting_types import require_types
from flax_transformer.errors import require, require_positive


@dataclass(frozen=True, kw_only=True)
class PaperSettings:
    """The model of Section 3; the defaults are the paper's base model."""

    num_encoder_layers: int = 6
    """Layers of the encoder."""
    num_decoder_layers: int = 6
    """Layers of the decoder."""
    d_model: int = 512
    """Width of the residual stream."""
    num_heads: int = 8
    """Attention heads; must divide d_model, of which each has its share."""
    encoder_heads: int | None = None
    """Heads that pruning has left in each layer of the encoder; by default num_heads."""
    decoder_heads: int | None = None
    """Those left in the self-attention of each layer of the decoder."""
    cross_heads: int | None = None
    """Those left in each layer's attention to the encoder."""
    d_ff: int = 2048
    """Inner width of the feed-forward sub-layer."""
    dropout: float = 0.1
    """Rate on every sub-layer's output and on the embedding sums (Section 5.4)."""
    norm: Literal["post", "pre"] = "post"
    """Layer normalisation after each residual sum (the paper) or before each sub-layer."""
    positions: Literal["sinusoidal", "learned", "fairseq"] = "sinusoidal"
    """Section 3.5's sines, a learned table (Table 3, row E), or fairseq's sines."""
    max_positions: int = 1024
    """Rows of the learned table, at least as many as batch.* allow; sinusoids have no limit."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of matrix products; parameters, softmax, norms and the loss stay in float32. auto:
    bfloat16 where the hardware multiplies it (TPUs, GPUs, CPUs with AMX or AVX512_BF16), else
    float32; a run keeps what it began with."""
    kernels: Literal["fast", "reference"] = "fast"
    """How results are computed: fast, or by the plain formulas that the fast functions replace.
    They differ by rounding; reference is slow and needs much memory."""
    remat: Literal["nothing", "dots", "everything"] = "nothing"
    """What the backward pass computes again instead of keeping: nothing, all but the matrix
    products, or everything."""
    unroll_layers: int | None = None
    """Layers compiled into one turn of the loop over layers; more runs faster and compiles longer.
    By default all on a GPU, where a loop copies what it keeps for the backward pass, else one."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(Conventions, PaperSettings):  # the fields of the last base come first
    """The model of Section 3, and after its settings those of models that others have trained."""

    def __post_init__(self):
        require_types(self, "model")
        self.check_conventions()
        require_positive(
            self, "model", "num_encoder_layers", "num_decoder_layers", "d_model", "num_heads",
            "d_ff", "max_positions",
        )  # fmt: skip
        require(
            self.unroll_layers is None or self.unroll_layers > 0,
            f"model.unroll_layers is {self.unroll_layers}, but must be greater than 0 (or None)",
        )
        require(
            self.d_model % self.num_heads == 0,
            f"model.num_heads ({self.num_heads}) must divide model.d_model ({self.d_model})",
        )
        for name in ("encoder_heads", "decoder_heads", "cross_heads"):
            left = getattr(self, name)
            require(
                left is None or 1 <= left <= self.num_heads,
                f"model.{name} is {left}, but must be from 1 to model.num_heads {self.num_heads}",
            )
        require(
            self.learns_positions or self.d_model % 2 == 0,
            f"model.d_model ({self.d_model}) must be even for sinusoidal positions",
        )
        require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}, but must be in [0, 1)")

    @property
    def learns_positions(self) -> bool:
        """Whether only positions that training has seen mean anything."""
        return self.positions == "learned"

    @property
    def longest_sequence(self) -> float:
        """Most positions that a sentence may have."""
        return self.max_positions if self.learns_positions else math.inf

    @property
    def attends_to_source(self) -> bool:
        """Whether the decoder has attention to the encoder's output."""
        return True

    @property
    def can_feed_own_tokens(self) -> bool:
        """Whether a training step may feed tokens that the model has chosen itself."""
        return False  # all positions are seen at once
