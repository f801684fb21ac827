"""What single choices cost: the same training step with one thing changed, in one run, in turn.

    python benchmarks/step_variants.py

The model is that of configs/multi30k_en_de.py. Figures are medians relative to the step as it is:
2.0 takes twice as long. Nothing else may run on the machine.
"""

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import tyro

from flax_transformer.batch import Batch
from flax_transformer.config import Config, MeshConfig
from flax_transformer.config.shipped import load_config_file
from flax_transformer.ops import dropout
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.runtime.memory import keep_freed_memory
from flax_transformer.training.state import create_state
from flax_transformer.training.step import train_step

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Times variants of one training step."""

    config: Path = ROOT / "configs" / "multi30k_en_de.py"
    repeats: int = 7


def random_batch(config: Config) -> Batch:
    """Rows full of pairs of 16 tokens."""
    random = np.random.default_rng(0)

    def side(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape = (config.batch.rows, length)
        place = np.broadcast_to(np.arange(length), shape).astype(np.int32)
        ids = random.integers(4, config.tokenizer.vocabulary_size, shape, np.int32)
        return ids, place // 16 + 1, place % 16

    source, target = side(config.batch.source_length), side(config.batch.target_length)
    return Batch(*source, target[0], *target)


def compiled_step(config: Config, batch: Batch) -> Callable[[], float]:
    """Takes one step; returns its seconds."""
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    held = [create_state(config, mesh)]
    key = jax.random.key(0)
    step = jax.jit(functools.partial(train_step, config), donate_argnums=0)
    program = step.lower(held[0], batch, key).compile()

    def run() -> float:
        start = time.perf_counter()
        held[0], _ = program(held[0], batch, key)
        jax.block_until_ready(held[0])
        return time.perf_counter() - start

    return run


def threefry_mask(key: jax.Array, shape: tuple[int, ...], keep_rate: float) -> jax.Array:
    return jax.random.bernoulli(key, keep_rate, shape)


def main(arguments: Arguments) -> None:
    config = load_config_file(arguments.config)
    batch = jax.device_put(random_batch(config))

    def changed(**model) -> Config:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))

    threefry = mock.patch.object(dropout, "keep_mask", threefry_mask)
    as_it_is = contextlib.nullcontext()
    variants = {
        "as it is": (config, as_it_is),
        "float32": (changed(compute_dtype="float32"), as_it_is),
        "one layer a turn": (changed(unroll_layers=1), as_it_is),
        "remat everything": (changed(remat="everything"), as_it_is),
        "no dropout": (changed(dropout=0.0), as_it_is),
        "dropout by threefry": (config, threefry),
    }
    steps = {}
    for name, (variant, patch) in variants.items():
        with patch:
            steps[name] = compiled_step(variant, batch)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(arguments.repeats + 1):
        for name, run in steps.items():
            seconds = run()
            if repeat:  # the first is a warm-up
                times[name].append(seconds)
    base = statistics.median(times["as it is"])
    tokens = config.batch.rows * config.batch.target_length
    print(f"as it is: {tokens / base:,.0f} target tokens/s")
    for name, seconds in times.items():
        print(f"{name:<22}{statistics.median(seconds) / base:6.2f}")


if __name__ == "__main__":
    keep_freed_memory()
    main(tyro.cli(Arguments))
