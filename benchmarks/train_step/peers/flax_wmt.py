"""The training step of flax's own WMT example, as it is: norm before each sub-layer, attention
weights dropped too.

Its code is taken from a checkout, not copied: `git clone https://github.com/google/flax`, then
FLAX_CHECKOUT=flax before the command. models.py and train.py of examples/wmt are loaded as they
are. What these import for their input pipeline and their log (TensorFlow, clu) is not needed for a
step and need not be installed.
"""

import functools
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import optax

from flax_transformer.batch import Batch
from flax_transformer.config import Config, TransformerConfig
from flax_transformer.errors import UserError

PACKAGES = ("flax",)

_MODULES = ("models", "train")
_NOT_NEEDED = (
    "bleu", "clu", "clu.metric_writers", "clu.periodic_actions", "decode", "input_pipeline",
    "ml_collections", "tensorflow", "tokenizer",
)  # fmt: skip
"""What `train.py` imports for the rest of a run."""


def check(config: Config) -> None:
    """Raises `UserError` where there is no checkout, or for a model that it does not have."""
    model = config.model
    if not isinstance(model, TransformerConfig) or model.positions != "sinusoidal":
        raise UserError("--peer flax_wmt trains a Transformer with sinusoidal positions")
    if model.num_encoder_layers != model.num_decoder_layers:
        raise UserError("--peer flax_wmt has as many layers in the decoder as in the encoder")
    _folder()


def prepare(
    config: Config,
    params: Any,
    batches: list[Batch],
    dtype: str,
    steps: int,
    attention_dropout: bool = True,
) -> "FlaxWmtStep":
    """Returns its step, which begins with random values of its own: its biases are others."""
    return FlaxWmtStep(config, batches, dtype, load_example(), attention_dropout)


def _folder() -> Path:
    folder = Path(os.environ.get("FLAX_CHECKOUT", "flax")) / "examples" / "wmt"
    if not (folder / "train.py").is_file():
        raise UserError(
            f"{folder} holds no train.py: git clone https://github.com/google/flax, and name the "
            "folder in FLAX_CHECKOUT"
        )
    return folder


def load_example() -> dict[str, ModuleType]:
    """Loads the modules of examples/wmt, by name, and leaves nothing of them to other imports."""
    importlib.import_module("flax.training.checkpoints")  # which looks for TensorFlow, not a stub
    kept = {name: sys.modules.pop(name, None) for name in _MODULES}
    stubs = {name: mock.MagicMock() for name in _NOT_NEEDED}
    try:
        with (
            mock.patch.dict(sys.modules, stubs),
            mock.patch.object(sys, "path", [str(_folder()), *sys.path]),
        ):
            return {name: importlib.import_module(name) for name in _MODULES}
    finally:
        for name, module in kept.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


class FlaxWmtStep:
    """Steps of the example's `train_step` on the first device."""

    peak_bytes: int | None = None

    def __init__(
        self,
        config: Config,
        batches: list[Batch],
        dtype: str,
        example: dict[str, ModuleType],
        attention_dropout: bool,
    ):
        models, train = example["models"], example["train"]
        settings = _settings(config, models, dtype, attention_dropout)
        network = models.Transformer(settings.replace(deterministic=True))
        inputs = jnp.ones((1, config.batch.source_length), jnp.float32)
        targets = jnp.ones((1, config.batch.target_length), jnp.float32)
        params = jax.jit(network.init)(jax.random.key(0), inputs, targets)["params"]
        rate = train.create_learning_rate_schedule(0.002, config.optimizer.warmup_steps)
        optimizer = optax.adamw(rate, b1=0.9, b2=0.98, eps=1e-9, weight_decay=0.0)
        state = train.TrainState.create(
            apply_fn=network.apply, params=params, tx=optimizer, dynamic_scale=None
        )
        step = functools.partial(
            train.train_step,
            config=settings,
            learning_rate_fn=rate,
            label_smoothing=config.training.label_smoothing,
        )
        self._step = jax.pmap(step, axis_name="batch", donate_argnums=0, devices=jax.devices()[:1])
        self._state = _one_each(state)
        self._batches = [_one_each(_as_example(batch)) for batch in batches]
        self._keys = jax.random.split(jax.random.key(1), 1)
        self._metrics: list[Any] = []

    def step(self) -> None:
        batch = self._batches[len(self._metrics) % len(self._batches)]
        self._state, sums = self._step(self._state, batch, dropout_rng=self._keys)
        self._metrics.append(sums)

    def wait(self) -> None:
        jax.block_until_ready(self._state)

    def losses(self) -> list[float]:
        return [float((x["loss"] / x["denominator"])[0]) for x in jax.device_get(self._metrics)]


def _settings(config: Config, models: ModuleType, dtype: str, attention_dropout: bool) -> Any:
    """Our settings in its words."""
    model = config.model
    assert isinstance(model, TransformerConfig)
    return models.TransformerConfig(
        vocab_size=config.tokenizer.vocabulary_size,
        output_vocab_size=config.tokenizer.vocabulary_size,
        share_embeddings=True,
        logits_via_embedding=True,
        dtype=jnp.dtype(dtype),
        emb_dim=model.d_model,
        num_heads=model.num_heads,
        num_layers=model.num_encoder_layers,
        qkv_dim=model.d_model,
        mlp_dim=model.d_ff,
        max_len=max(config.batch.source_length, config.batch.target_length),
        dropout_rate=model.dropout,
        attention_dropout_rate=model.dropout if attention_dropout else 0.0,
    )


def _as_example(batch: Batch) -> dict[str, Any]:
    """The arrays under the example's names; it shifts the targets itself."""
    return {
        "inputs": batch.source_ids,
        "targets": batch.target_outputs,
        "inputs_position": batch.source_positions,
        "targets_position": batch.target_positions,
        "inputs_segmentation": batch.source_segments,
        "targets_segmentation": batch.target_segments,
    }


def _one_each(tree: Any) -> Any:
    """`tree` with the axis of devices, of which there is one, that pmap splits."""
    return jax.tree.map(lambda x: jnp.asarray(x)[None], tree)
