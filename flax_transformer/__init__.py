"""The Transformer of "Attention Is All You Need" in JAX and Flax: train, evaluate, translate.

    import flax_transformer as ft

    model = ft.load("runs/quickstart")
    model.translate(["The cat sleeps."])

What stands in `__all__` is loaded when it is first used: the import itself loads neither JAX nor
anything else that takes time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax_transformer.api.model import Model, Score, load
    from flax_transformer.config import (
        BatchConfig,
        Builtin,
        Config,
        DecodingConfig,
        MeshConfig,
        OptimizerConfig,
        RecurrentConfig,
        TextFiles,
        Tfds,
        TokenizerConfig,
        TrainingConfig,
        TrainingFiles,
        TransformerConfig,
    )
    from flax_transformer.config.shipped import load_config_file as load_config
    from flax_transformer.errors import UserError
    from flax_transformer.inspection.attention import Attention
    from flax_transformer.inspection.curves import plot_curves
    from flax_transformer.inspection.heads import HeadImportance
    from flax_transformer.inspection.model_diagram import plot_model
    from flax_transformer.inspection.positions import plot_positions
    from flax_transformer.inspection.schedule import plot_schedule
    from flax_transformer.inspection.search_tree import SearchTree
    from flax_transformer.training.run import Run
    from flax_transformer.translation.hypotheses import Hypothesis

__version__ = "0.1.0"

__all__ = [
    "Attention",
    "BatchConfig",
    "Builtin",
    "Config",
    "DecodingConfig",
    "HeadImportance",
    "Hypothesis",
    "MeshConfig",
    "Model",
    "OptimizerConfig",
    "RecurrentConfig",
    "Run",
    "Score",
    "SearchTree",
    "TextFiles",
    "Tfds",
    "TokenizerConfig",
    "TrainingConfig",
    "TrainingFiles",
    "TransformerConfig",
    "UserError",
    "__version__",
    "load",
    "load_config",
    "plot_curves",
    "plot_model",
    "plot_positions",
    "plot_schedule",
]

_HOMES = {
    "Attention": "flax_transformer.inspection.attention",
    "HeadImportance": "flax_transformer.inspection.heads",
    "UserError": "flax_transformer.errors",
    "Hypothesis": "flax_transformer.translation.hypotheses",
    "Model": "flax_transformer.api.model",
    "Run": "flax_transformer.training.run",
    "Score": "flax_transformer.api.model",
    "SearchTree": "flax_transformer.inspection.search_tree",
    "load": "flax_transformer.api.model",
    "load_config": "flax_transformer.config.shipped:load_config_file",
    "plot_curves": "flax_transformer.inspection.curves",
    "plot_model": "flax_transformer.inspection.model_diagram",
    "plot_positions": "flax_transformer.inspection.positions",
    "plot_schedule": "flax_transformer.inspection.schedule",
}
"""Where a name lives, and what it is called there; all others live in `flax_transformer.config`."""


if not TYPE_CHECKING:  # to a type checker it would mean that every name is there

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, original = _HOMES.get(name, "flax_transformer.config").partition(":")
        value = globals()[name] = getattr(importlib.import_module(module), original or name)
        return value


def __dir__() -> list[str]:
    return __all__
