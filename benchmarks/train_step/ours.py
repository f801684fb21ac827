"""Our training step as a contender, and the small model that is trained without --config."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax

from flax_transformer.batch import Batch
from flax_transformer.config import (
    BatchConfig,
    Config,
    MeshConfig,
    OptimizerConfig,
    TokenizerConfig,
    TransformerConfig,
)
from flax_transformer.config.shipped import load_config_file
from flax_transformer.parallel.sharding import batch_sharding, build_mesh, replicated
from flax_transformer.training.state import TrainState, create_state
from flax_transformer.training.step import jit_train_step

SMALL = Config(
    tokenizer=TokenizerConfig(vocabulary_size=8000),
    batch=BatchConfig(rows=128, source_length=32, target_length=32),
    model=TransformerConfig(
        num_encoder_layers=3,
        num_decoder_layers=3,
        d_model=256,
        num_heads=4,
        d_ff=1024,
        unroll_layers=3,
    ),
    optimizer=OptimizerConfig(warmup_steps=400),  # so that the losses fall within some steps
)


def settings_before_flags(words: Sequence[str], default: Path | None = None) -> Config:
    """Reads the settings of --config or of `default`, or takes the small model's; flags go over
    them."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path, default=default)
    path = finder.parse_known_args(words)[0].config
    return SMALL if path is None else load_config_file(path)


def one_device() -> jax.sharding.Mesh:
    """The mesh that everything here runs on: the first device alone."""
    return build_mesh(MeshConfig(data=1), jax.devices()[:1])


class OurStep:
    """Training steps as train.py takes them, on the first device."""

    def __init__(self, config: Config, batches: list[Batch]):
        mesh = one_device()
        self.state: TrainState = create_state(config, mesh)
        self._batches = jax.device_put(batches, batch_sharding(mesh))
        self._key = jax.device_put(jax.random.key(config.training.seed + 1), replicated(mesh))
        step = jit_train_step(config, mesh, self.state)
        self.program = step.lower(self.state, self._batches[0], self._key).compile()
        self._metrics: list[dict[str, jax.Array]] = []

    def step(self) -> None:
        batch = self._batches[len(self._metrics) % len(self._batches)]
        self.state, metrics = self.program(self.state, batch, self._key)
        self._metrics.append(metrics)

    def wait(self) -> None:
        jax.block_until_ready(self.state)

    def losses(self) -> list[float]:
        return [float(sums["loss"] / sums["tokens"]) for sums in jax.device_get(self._metrics)]

    @property
    def peak_bytes(self) -> int | None:
        """As the compiler planned it: arguments, results that do not replace them, temporaries."""
        plan = self.program.memory_analysis()
        if plan is None:
            return None
        return (
            plan.argument_size_in_bytes
            + plan.output_size_in_bytes
            - plan.alias_size_in_bytes
            + plan.temp_size_in_bytes
        )
