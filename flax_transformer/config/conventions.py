"""Settings of models that others have trained, where these differ from the paper."""

from dataclasses import dataclass
from typing import Literal

from flax_transformer.errors import require


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What later code does otherwise (models/conventions.py); the defaults are the paper's."""

    activation: Literal["relu", "gelu", "swish"] = "relu"
    """Between the products of the feed-forward sub-layer; the paper has relu."""
    attention_biases: bool = False
    """Whether the projections of attention have biases."""
    output_bias: Literal["none", "fixed", "learned"] = "none"
    """A bias of every token among the logits; fixed: training leaves it as it is."""
    own_source_table: bool = False
    """Whether the source has an embedding of its own, instead of sharing the target's."""
    own_output_table: bool = False
    """Whether the output projection has a matrix of its own, instead of the target's embedding."""
    scale_embedding: bool = True
    """Whether embeddings are multiplied by sqrt(d_model) (Section 3.4)."""
    norm_epsilon: float = 1e-6
    """What layer normalisation adds to the variance."""

    def check_conventions(self) -> None:
        require(
            self.norm_epsilon > 0,
            f"model.norm_epsilon is {self.norm_epsilon}, but must be greater than 0",
        )
