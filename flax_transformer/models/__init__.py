"""The networks: the paper in `transformer.py`, decoding step by step in `incremental.py`, what came
before in `recurrent/`, and what all of them are asked in `family.py`."""

import flax.linen as nn
import jax

from flax_transformer.config import RecurrentConfig, TransformerConfig
from flax_transformer.models.incremental import IncrementalTransformer
from flax_transformer.models.recurrent.seq2seq import Seq2Seq
from flax_transformer.ops.compute_dtype import settle_model_dtype


def build_model(config: TransformerConfig | RecurrentConfig, vocabulary_size: int) -> nn.Module:
    """The module that `config` describes, a `Family`; the only place that knows which kinds there
    are.

    A compute type that nobody has settled is what suits the first device.
    """
    if config.compute_dtype == "auto":
        config = settle_model_dtype(config, jax.devices()[0])
    if isinstance(config, RecurrentConfig):
        return Seq2Seq(config, vocabulary_size)
    return IncrementalTransformer(config, vocabulary_size)
