"""What single choices cost: the same training step with one thing changed, in one run, in turn.

    python -m benchmarks.train_step.variants
    python -m benchmarks.train_step.variants --batch.rows 64

The model is that of configs/multi30k_en_de.py, its rows full of pairs of 16 tokens. Figures are
medians relative to the step as it is: 2.0 takes twice as long. Nothing else may run on the machine.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest import mock

import jax
import tyro

from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.timing import in_turns, ratio
from benchmarks.train_step.contender import take_steps
from benchmarks.train_step.made_up_batches import full_batches
from benchmarks.train_step.ours import OurStep, settings_before_flags
from flax_transformer.batch import Batch
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import Config
from flax_transformer.ops import dropout

MULTI30K = Path("configs/multi30k_en_de.py")

TOKENS = 16
"""Of a sentence; they divide the rows of the shipped configs."""


VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {"compute_dtype": "float32"},
    "one layer at a time": {"unroll_layers": 1},
    "remat everything": {"remat": "everything"},
    "no dropout": {"dropout": 0.0},
    "dropout by threefry": {},
}
"""What is changed in the model's settings; the last one is changed in the code."""


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Times variants of one training step."""

    config: Path = MULTI30K
    variants: tuple[Literal[tuple(VARIANTS)], ...] = tuple(VARIANTS)
    """What to change, one at a time."""
    repeats: int = 7
    record: Path = RECORDS / "step_variants.json"
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def threefry_mask(key: jax.Array, shape: tuple[int, ...], keep_rate: float) -> jax.Array:
    return jax.random.bernoulli(key, keep_rate, shape)


def compile_variants(
    config: Config, batches: list[Batch], names: Sequence[str]
) -> dict[str, OurStep]:
    """Compiles the step of `config` as it is, and with one thing changed at a time."""
    steps = {"as it is": OurStep(config, batches)}
    for name in names:
        model = dataclasses.replace(config.model, **VARIANTS[name])
        mask = threefry_mask if name == "dropout by threefry" else dropout.keep_mask
        with mock.patch.object(dropout, "keep_mask", mask):
            steps[name] = OurStep(dataclasses.replace(config, model=model), batches)
    return steps


def main(words: Sequence[str]) -> None:
    default = Arguments(settings=settings_before_flags(words, MULTI30K))
    arguments = parse_arguments(Arguments, words, default)
    config = arguments.settings
    steps = compile_variants(config, full_batches(config, 1, TOKENS), arguments.variants)
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
        "rows": config.batch.rows,
        "target_tokens_per_second": tokens / base.median,
        "times_as_long": costs,
    }
    append_record(arguments, ("jax", "jaxlib"), figures)


if __name__ == "__main__":
    run_command(main)
