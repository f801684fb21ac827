"""What single choices cost: the same training step with one thing changed, in one run, in turn.

    python -m benchmarks.train_step.variants

The model is that of configs/multi30k_en_de.py, its rows full of pairs of 16 tokens. Figures are
medians relative to the step as it is: 2.0 takes twice as long. Nothing else may run on the machine.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import jax

from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.timing import in_turns, ratio
from benchmarks.train_step.contender import take_steps
from benchmarks.train_step.made_up_batches import full_batches
from benchmarks.train_step.ours import OurStep
from flax_transformer.batch import Batch
from flax_transformer.commands.command_line import load_config_file, parse_arguments, run_command
from flax_transformer.config import Config
from flax_transformer.ops import dropout

TOKENS = 16
"""Of a sentence; they divide the rows of the shipped configs."""


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Times variants of one training step."""

    config: Path = Path("configs/multi30k_en_de.py")
    repeats: int = 7
    record: Path = RECORDS / "step_variants.json"


def threefry_mask(key: jax.Array, shape: tuple[int, ...], keep_rate: float) -> jax.Array:
    return jax.random.bernoulli(key, keep_rate, shape)


def variants(config: Config, batches: list[Batch]) -> dict[str, OurStep]:
    """Compiles the step of `config` as it is, and with one thing changed at a time."""

    def changed(**model) -> Config:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))

    as_it_is = contextlib.nullcontext()
    threefry = mock.patch.object(dropout, "keep_mask", threefry_mask)
    every = {
        "as it is": (config, as_it_is),
        "float32": (changed(compute_dtype="float32"), as_it_is),
        "one layer at a time": (changed(unroll_layers=1), as_it_is),
        "remat everything": (changed(remat="everything"), as_it_is),
        "no dropout": (changed(dropout=0.0), as_it_is),
        "dropout by threefry": (config, threefry),
    }
    found = {}
    for name, (variant, patch) in every.items():
        with patch:
            found[name] = OurStep(variant, batches)
    return found


def main(words: Sequence[str]) -> None:
    arguments = parse_arguments(Arguments, words)
    config = load_config_file(arguments.config)
    steps = variants(config, full_batches(config, 1, TOKENS))
    turns = {name: partial(take_steps, step, 1) for name, step in steps.items()}
    seconds = in_turns(turns, arguments.repeats)
    base = seconds["as it is"]
    tokens = config.batch.rows * config.batch.target_length
    costs = {name: ratio(each, base).of_medians for name, each in seconds.items()}
    print(f"as it is: {tokens / base.median:,.0f} target tokens/s")
    for name, cost in costs.items():
        print(f"{name:<22}{cost:6.2f}")
    figures = {
        "config": str(arguments.config),
        "target_tokens_per_second": tokens / base.median,
        "times_as_long": costs,
    }
    append_record(arguments, ("jax", "jaxlib"), figures)


if __name__ == "__main__":
    run_command(main)
