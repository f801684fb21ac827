"""Settings of the recurrent models, which answer the same questions as `TransformerConfig`."""

import math
from dataclasses import dataclass
from typing import Literal

from flax_transformer.config.setting_types import require_types
from flax_transformer.errors import require, require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """A recurrent encoder-decoder, as before the Transformer.

    The defaults: LSTMs with the attention and input feeding of Luong et al. 2015, and a
    bidirectional encoder as in Bahdanau et al. 2015.
    """

    cell: Literal["lstm", "gru"] = "lstm"
    """LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al. 2014)."""
    num_encoder_layers: int = 2
    """Layers of the encoder."""
    num_decoder_layers: int = 2
    """Layers of the decoder."""
    d_model: int = 512
    """Units of a layer, and width of the embedding."""
    bidirectional: bool = True
    """Whether the encoder reads in both directions, with half of its units in each."""
    attention: Literal["none", "dot", "general", "concat", "multi_head"] = "general"
    """Score of the decoder's state and the encoder's: dot or general (Luong et al. 2015), concat
    (Bahdanau et al. 2015) or the Transformer's heads; with none the decoder only starts from the
    encoder's last state (Sutskever et al. 2014)."""
    num_heads: int = 8
    """Heads of multi_head attention; must divide d_model."""
    input_feeding: bool = True
    """Whether a position's features enter the first layer at the next one (Luong et al. 2015,
    section 3.3). Without it, dot, general and multi_head attention leave the loop over positions,
    which is far quicker."""
    coverage: bool = False
    """Whether the sum of past attention enters concat's score (See et al. 2017, after Tu et al.
    2016)."""
    coverage_loss: float = 1.0
    """With coverage: weight of the loss for looking at the same position again."""
    dropout: float = 0.2
    """Rate on embeddings, between layers and on the features before the softmax."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of matrix products; parameters, gates, states, softmax and the loss stay in float32.
    auto: bfloat16 where the hardware multiplies it (TPUs, GPUs, CPUs with AMX or AVX512_BF16), else
    float32; a run keeps what it began with."""
    kernels: Literal["fast", "reference"] = "fast"
    """How results are computed: fast, or by the plain formulas that the fast functions replace.
    They differ by rounding; reference is slow and needs much memory."""
    unroll_steps: int = 1
    """Positions compiled into one turn of the loop over positions."""

    def __post_init__(self):
        require_types(self, "model")
        require_positive(
            self, "model", "num_encoder_layers", "num_decoder_layers", "d_model", "num_heads",
            "unroll_steps",
        )  # fmt: skip
        require(
            not self.bidirectional or self.d_model % 2 == 0,
            f"model.d_model ({self.d_model}) must be even: each direction of the encoder has half",
        )
        require(
            self.attention != "multi_head" or self.d_model % self.num_heads == 0,
            f"model.num_heads ({self.num_heads}) must divide model.d_model ({self.d_model})",
        )
        require(
            self.attention != "none" or not self.input_feeding,
            "model.attention is none, so there is nothing to feed: add --model.no-input-feeding",
        )
        require(
            self.attention == "concat" or not self.coverage,
            f"model.attention is {self.attention}, but model.coverage needs concat",
        )
        require_not_negative(self, "model", "coverage_loss")
        require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}, but must be in [0, 1)")

    @property
    def attention_biases(self) -> bool:
        """Whether the projections of attention have biases."""
        return False

    @property
    def learns_positions(self) -> bool:
        """Whether only positions that training has seen mean anything."""
        return False

    @property
    def longest_sequence(self) -> float:
        """Most positions that a sentence may have."""
        return math.inf

    @property
    def attends_to_source(self) -> bool:
        """Whether the decoder has attention to the encoder's output."""
        return self.attention != "none"

    @property
    def can_feed_own_tokens(self) -> bool:
        """Whether a training step may feed tokens that the model has chosen itself."""
        return True
