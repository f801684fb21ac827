"""The networks. All offer `encode` and `decode`, and for search `start_cache`, `grow_cache` and
`decode_step` with or without attention. Called with a packed batch they give the decoder's
features; what else they want minimised, they sow into "losses"."""

import flax.linen as nn
import jax

from flax_transformer.config import RecurrentConfig, TransformerConfig
from flax_transformer.models.recurrent.seq2seq import Seq2Seq
from flax_transformer.models.transformer import Transformer
from flax_transformer.ops.compute_dtype import settle_model


def build_model(config: TransformerConfig | RecurrentConfig, vocabulary_size: int) -> nn.Module:
    """The module that `config` describes; the only place that knows which kinds there are.

    A compute type that nobody has settled is what suits the first device.
    """
    if config.compute_dtype == "auto":
        config = settle_model(config, jax.devices()[0])
    if isinstance(config, RecurrentConfig):
        return Seq2Seq(config, vocabulary_size)
    return Transformer(config, vocabulary_size)
