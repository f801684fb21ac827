"""The networks. All offer `encode`, `decode`, `decode_step` and `start_cache`."""

import flax.linen as nn

from flax_transformer.config import TransformerConfig
from flax_transformer.models.transformer import Transformer


def build_model(config: TransformerConfig, vocabulary_size: int) -> nn.Module:
    """The module that `config` describes; the only place that knows which kinds there are."""
    return Transformer(config, vocabulary_size)
