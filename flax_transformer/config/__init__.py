"""The settings of a run, under one name: `from flax_transformer.config import Config`."""

from flax_transformer.config.data import Builtin, TextFiles, Tfds, TrainingFiles
from flax_transformer.config.decoding import DecodingConfig
from flax_transformer.config.model import TransformerConfig
from flax_transformer.config.recurrent import RecurrentConfig
from flax_transformer.config.run import (
    BatchConfig,
    Config,
    MeshConfig,
    OptimizerConfig,
    TrainingConfig,
)
from flax_transformer.config.setting_types import BleuTokenizer
from flax_transformer.config.tokenizer import SMALLEST_VOCABULARY, TokenizerConfig

__all__ = [
    "SMALLEST_VOCABULARY",
    "BatchConfig",
    "BleuTokenizer",
    "Builtin",
    "Config",
    "DecodingConfig",
    "MeshConfig",
    "OptimizerConfig",
    "RecurrentConfig",
    "TextFiles",
    "Tfds",
    "TokenizerConfig",
    "TrainingConfig",
    "TrainingFiles",
    "TransformerConfig",
]
