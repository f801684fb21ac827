"""The networks. All offer `encode`, `decode`, `decode_step` and `start_cache`, and called with a
packed batch give the decoder's features; what else they want minimised, they sow into "losses"."""

import flax.linen as nn

from flax_transformer.config import RecurrentConfig, TransformerConfig
from flax_transformer.models.recurrent.seq2seq import Seq2Seq
from flax_transformer.models.transformer import Transformer


def build_model(config: TransformerConfig | RecurrentConfig, vocabulary_size: int) -> nn.Module:
    """The module that `config` describes; the only place that knows which kinds there are."""
    if isinstance(config, RecurrentConfig):
        return Seq2Seq(config, vocabulary_size)
    return Transformer(config, vocabulary_size)
