"""How fast a training step is: target tokens a second, use of the device (MFU) and memory.

    python benchmarks/train_step.py --config configs/wmt_base.py
    python benchmarks/train_step.py --config configs/wmt_big.py --batch.rows 64
    python benchmarks/train_step.py --peer torch

The step is the one that train.py runs, optimizer included, on one device and made-up sentences of
about 25 tokens, packed. Every setting can be overridden: --model.d-model 256 --batch.rows 64, ...

With --peer torch the same model is trained with torch.nn.Transformer on the same batches, the two
in turn in one process. There every row holds one sentence of the row's length, so that nothing but
the causal mask is needed: torch's module knows no packing. PyTorch (pip install torch) is no
dependency of this project. Without --config the model is a small one, for CPUs: 3 + 3 layers of
width 256, 128 rows of 32 + 32 tokens.

Appends a record to benchmarks/records/train_step.json. Nothing else should run on the machine.
"""

import argparse
import dataclasses
import importlib
import os
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import jax
import numpy as np
import tyro
from made_up_batches import made_up_batches
from recording import RECORDS, append_record

from flax_transformer.batch import Batch
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import (
    BatchConfig,
    Config,
    MeshConfig,
    OptimizerConfig,
    TokenizerConfig,
    TransformerConfig,
)
from flax_transformer.config.shipped import load_config_file
from flax_transformer.dry_run.chips import CHIPS
from flax_transformer.dry_run.flops import model_flops
from flax_transformer.errors import ConfigError
from flax_transformer.parallel.sharding import batch_sharding, build_mesh, replicated
from flax_transformer.training.optimizer import learning_rate_schedule
from flax_transformer.training.state import TrainState, count_parameters, create_state
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

FORMULA = (
    "MFU = target tokens/s x FLOP a target token / peak; FLOP a target token = 6 x the numbers of "
    "encoder, decoder and output matrices, where source and target are equally long"
)

BATCHES = 4
"""Different batches, which come again and again."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Times training steps, alone or against another library's."""

    config: Path | None = None
    """Python file with the settings; by default a small model for CPUs."""
    peer: Literal["torch"] | None = None
    """Train the same model with another library, in turn with ours."""
    compute_dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("bfloat16", "float32")
    """Types of matrix products, one after the other."""
    steps: int = 10
    """Steps in each repeat."""
    repeats: int = 5
    """Repeats that count, after one that warms up; the median is the result."""
    sentence_tokens: int = 25
    """Mean length of a made-up sentence; with a peer, the length of the rows."""
    note: str = ""
    """What a reader should know, such as other load on the machine."""
    record: Path = RECORDS / "train_step.json"
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


class Contender(Protocol):
    """A model in training."""

    def run(self, steps: int) -> tuple[float, list[float]]:
        """Seconds of `steps` more steps, and the mean loss of each."""

    @property
    def peak_bytes(self) -> int | None:
        """Device memory that a step takes at most; None where it is unknown."""


def settings_before_flags(words: Sequence[str]) -> Config:
    """The settings of --config, or the small model's, over which the flags among `words` go."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    path = finder.parse_known_args(words)[0].config
    return SMALL if path is None else load_config_file(path)


class OurStep:
    """Training steps as train.py takes them, on the first device."""

    def __init__(self, config: Config, mesh: jax.sharding.Mesh, batches: list[Batch]):
        self.state: TrainState = create_state(config, mesh)
        self.batches = jax.device_put(batches, batch_sharding(mesh))
        self.key = jax.device_put(jax.random.key(config.training.seed + 1), replicated(mesh))
        step = jit_train_step(config, mesh, self.state)
        self.program = step.lower(self.state, self.batches[0], self.key).compile()
        self.done = 0

    def run(self, steps: int) -> tuple[float, list[float]]:
        start, metrics = time.perf_counter(), []
        for _ in range(steps):
            batch = self.batches[self.done % len(self.batches)]
            self.state, sums = self.program(self.state, batch, self.key)
            metrics.append(sums)
            self.done += 1
        jax.block_until_ready(self.state)
        seconds = time.perf_counter() - start
        return seconds, [float(x["loss"] / x["tokens"]) for x in jax.device_get(metrics)]

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


def check_peer(config: Config) -> None:
    """Raises `ConfigError` where the peer is missing or cannot train this."""
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise ConfigError(f"--peer torch needs PyTorch ({error}): pip install torch") from None
    if config.model.norm != "post" or config.model.positions != "sinusoidal":
        raise ConfigError("--peer torch trains the paper's model: norm post, positions sinusoidal")
    if config.optimizer.clip_norm is not None or config.training.accumulation_steps != 1:
        raise ConfigError("--peer torch neither clips gradients nor accumulates them")


def torch_steps(
    config: Config, params, batches: list[Batch], dtypes: Sequence[str], steps: int
) -> dict[str, Contender]:
    """The peer in each of `dtypes`, beginning with our `params`."""
    from torch_transformer import TorchStep  # PyTorch is only there for the comparison

    schedule = learning_rate_schedule(config)
    rates = [float(schedule(step)) for step in range(steps)]
    cores = len(os.sched_getaffinity(0))
    return {
        f"torch {dtype}": TorchStep(config, params, batches, dtype, rates, cores)
        for dtype in dtypes
    }


def contenders(arguments: Arguments, batches: list[Batch]) -> dict[str, Contender]:
    """Everything that is timed, ready for its first step."""
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    config = arguments.settings
    found: dict[str, Contender] = {}
    for dtype in arguments.compute_dtypes:
        model = dataclasses.replace(config.model, compute_dtype=dtype)
        own = dataclasses.replace(config, model=model)
        found[f"ours {dtype}"] = OurStep(own, mesh, batches)
    if arguments.peer == "torch":
        params = jax.device_get(create_state(config, mesh).params)
        steps = arguments.steps * (arguments.repeats + 1)
        found |= torch_steps(config, params, batches, arguments.compute_dtypes, steps)
    return found


def measure(arguments: Arguments, runners: dict[str, Contender], tokens: float) -> dict[str, Any]:
    """Target tokens a second of each, `tokens` of them in a step, and its first and last losses."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    losses: dict[str, list[float]] = {name: [] for name in runners}
    for repeat in range(arguments.repeats + 1):
        for name, runner in runners.items():
            taken, some = runner.run(arguments.steps)
            losses[name] += some
            if repeat:  # the first is a warm-up
                seconds[name].append(taken / arguments.steps)
    return {
        name: {
            "target_tokens_per_second": tokens / statistics.median(seconds[name]),
            "step_seconds_of_repeats": seconds[name],
            # The first time and the last time through the batches.
            "first_losses": losses[name][:BATCHES],
            "last_losses": losses[name][-BATCHES:],
            "peak_bytes": runner.peak_bytes,
        }
        for name, runner in runners.items()
    }


def add_use_of_device(results: dict[str, Any], token_flops: float, peak: float | None) -> None:
    """Adds the arithmetic a second, and its share of the device's `peak` where that is known."""
    for result in results.values():
        result["flops_per_second"] = result["target_tokens_per_second"] * token_flops
        result["mfu"] = None if peak is None else result["flops_per_second"] / peak


def ratios(results: dict[str, Any]) -> dict[str, float]:
    """How many times as fast one is as the other, of those pairs that were timed."""
    pairs = [
        ("ours bfloat16", "torch bfloat16"),
        ("ours bfloat16", "ours float32"),
        ("ours float32", "torch float32"),
    ]
    speed = {name: result["target_tokens_per_second"] for name, result in results.items()}
    return {f"{a} / {b}": speed[a] / speed[b] for a, b in pairs if a in speed and b in speed}


def report(figures: dict[str, Any]) -> None:
    print(
        f"{figures['parameters']:,} parameters on {figures['device']}, "
        f"{figures['target_tokens_in_a_step']:,.0f} target tokens a step\n{FORMULA}"
    )
    for name, result in figures["results"].items():
        use = "unknown peak" if result["mfu"] is None else f"MFU {result['mfu']:.1%}"
        memory = result["peak_bytes"]
        print(
            f"{name:<16}{result['target_tokens_per_second']:>12,.0f} target tokens/s, {use}, "
            f"{'unknown memory' if memory is None else f'{memory / 2**30:.2f} GiB'}, "
            f"loss {statistics.mean(result['first_losses']):.4f} -> "
            f"{statistics.mean(result['last_losses']):.4f}"
        )
    for names, ratio in figures["ratios"].items():
        print(f"{names:<32}{ratio:.2f}")
    print(f"process: {figures['peak_resident_bytes'] / 2**30:.2f} GiB at most")


def main(words: Sequence[str]) -> None:
    arguments = parse_arguments(Arguments, words, Arguments(settings=settings_before_flags(words)))
    if arguments.peer:
        check_peer(arguments.settings)
        # Otherwise JAX takes most of a GPU's memory for itself, before its first use of it.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    config = arguments.settings
    batches = made_up_batches(
        config, BATCHES, None if arguments.peer else arguments.sentence_tokens
    )
    tokens = float(np.mean([(batch.target_segments > 0).sum() for batch in batches]))
    runners = contenders(arguments, batches)
    results = measure(arguments, runners, tokens)
    device = jax.devices()[0]
    peak = CHIPS[device.device_kind].flops if device.device_kind in CHIPS else None
    ours = next(runner for runner in runners.values() if isinstance(runner, OurStep))
    # Slots of padding are no work done: a token counts as a slot does.
    slots = config.batch.rows * config.batch.target_length
    token_flops = model_flops(config, ours.state.params).matrices / slots
    add_use_of_device(results, token_flops, peak)
    figures = {
        "device": device.device_kind,
        "model": dataclasses.asdict(config.model),
        "batch": dataclasses.asdict(config.batch),
        "vocabulary_size": config.tokenizer.vocabulary_size,
        "packed": arguments.peer is None,
        "parameters": count_parameters(ours.state.params),
        "target_tokens_in_a_step": tokens,
        "flops_of_a_target_token": token_flops,
        "peak_flops_of_device": peak,
        "formula": FORMULA,
        "results": results,
        "ratios": ratios(results),
        # The most of the whole process: of everything that was timed together.
        "peak_resident_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    report(figures)
    packages = ("jax", "jaxlib", "flax", "optax", *(("torch",) if arguments.peer else ()))
    append_record(arguments.record, packages, arguments.note, figures)


if __name__ == "__main__":
    run_command(main)
