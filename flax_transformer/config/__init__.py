"""The settings of a run, under one name: `from flax_transformer.config import Config`."""

from flax_transformer.config.data import Builtin, TextFiles, Tfds, TrainingFiles
from flax_transformer.config.model import RecurrentConfig, TransformerConfig
from flax_transformer.config.run import (
    SMALLEST_VOCABULARY,
    BatchConfig,
    BleuTokenizer,
    Config,
    DecodingConfig,
    MeshConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainingConfig,
)

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
