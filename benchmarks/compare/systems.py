"""What is compared: the Transformer, and LSTMs of the width at which they are about as large."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks.compare.arguments import System
from flax_transformer.config import Config, MeshConfig, OptimizerConfig, RecurrentConfig
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.training.state import abstract_state, count_parameters

WARMUP_STEPS = 300
"""Few enough for a run of some minutes."""

TRANSFORMER_RATE, LSTM_RATE = 0.0025, 0.002
"""Highest learning rates, those of configs/tatoeba_en_fr.py and tatoeba_en_fr_lstm.py."""

WIDTH_STEP = 16
"""Of the LSTMs' width: matrix units like multiples of 16, which can be split into 8 heads."""


def configurations(base: Config, systems: Sequence[System], dropout: float) -> dict[System, Config]:
    """Returns the settings of each system: those of `base`, whose model is the Transformer, with
    another model and its learning rate. dropout: of the LSTMs."""
    wanted, found = parameters(base), {}
    for system in systems:
        if system == "transformer":
            found[system] = dataclasses.replace(base, optimizer=_optimizer(base, TRANSFORMER_RATE))
            continue
        config = _as_large_as(wanted, base, system.removeprefix("lstm_"), dropout)
        optimizer = _optimizer(config, LSTM_RATE, clip_norm=1.0)
        found[system] = dataclasses.replace(config, optimizer=optimizer)
    return found


def parameters(config: Config) -> int:
    """Counts the trained numbers, without making them."""
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    return count_parameters(abstract_state(config, mesh).params)


def _optimizer(config: Config, rate: float, **more: Any) -> OptimizerConfig:
    """With the highest rate `rate`, whatever the width: d^-0.5 warmup^-0.5 is the paper's. The
    rate falls with the square root of the step and needs to know no end."""
    scale = rate * (config.model.d_model * WARMUP_STEPS) ** 0.5
    return OptimizerConfig(learning_rate_scale=scale, warmup_steps=WARMUP_STEPS, **more)


def _as_large_as(wanted: int, base: Config, attention: Any, dropout: float) -> Config:
    """`base` with LSTMs of the width at which the number of parameters is nearest to `wanted`.

    Two layers on each side and a bidirectional encoder, whatever the attention. No input feeding,
    so that the score function is all that differs.
    """

    def lstm(width: int) -> Config:
        model = RecurrentConfig(
            d_model=width, attention=attention, input_feeding=False, dropout=dropout
        )
        return dataclasses.replace(base, model=model)

    # Matrices grow with d^2, biases and the embedding with d, so that two widths tell of all
    # others: a d^2 + b d = wanted.
    one, two = (parameters(lstm(times * WIDTH_STEP)) for times in (1, 2))
    a, b = (two - 2 * one) / 2, (4 * one - two) / 2
    steps = (math.sqrt(b * b + 4 * a * wanted) - b) / (2 * a)
    return lstm(WIDTH_STEP * max(1, round(steps)))
