"""How fast a training step is: target tokens per second, use of the device (MFU) and memory.

    python -m benchmarks.train_step --config configs/wmt_base.py
    python -m benchmarks.train_step --config configs/wmt_big.py --batch.rows 64
    python -m benchmarks.train_step --peer torch

The step is the one that train.py runs, optimizer included, on one device and made-up sentences of
about 25 tokens, packed. Every setting can be overridden: --model.d-model 256 --batch.rows 64, ...

With --peer another library trains the same model on the same batches, in turn with ours in one
process; contender.py says what a peer is. There every row holds one sentence of the row's length,
so that nothing but the causal mask is needed: torch's module knows no packing. PyTorch (pip install
torch) is no dependency of this project. Without --config the model is a small one, for CPUs: 3 + 3
layers of width 256, 128 rows of 32 + 32 tokens.

Nothing else should run on the machine.
"""

import dataclasses
import os
import resource
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro

from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.timing import in_turns
from benchmarks.train_step.contender import PEERS, Contender, load_peer, take_steps
from benchmarks.train_step.made_up_batches import full_batches, packed_batches
from benchmarks.train_step.ours import OurStep, one_device, settings_before_flags
from flax_transformer.batch import Batch
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import Config
from flax_transformer.dry_run.chips import CHIPS
from flax_transformer.dry_run.flops import model_flops
from flax_transformer.training.state import count_parameters, create_state

FORMULA = (
    "MFU = target tokens/s x FLOP a target token / peak; FLOP a target token = 6 x the numbers of "
    "encoder, decoder and output matrices, where source and target are equally long"
)

BATCHES = 4
"""Different batches, which come again and again."""


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Times training steps, alone or against other libraries'."""

    config: Path | None = None
    """Python file with the settings; by default a small model for CPUs."""
    peer: tuple[Literal[PEERS], ...] = ()
    """Train the same model with other libraries, in turn with ours."""
    compute_dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("bfloat16", "float32")
    """Types of matrix products, one after the other."""
    steps: int = 10
    """Steps in each repeat."""
    repeats: int = 5
    """Repeats that count, after one that warms up; the median is the result."""
    sentence_tokens: int = 25
    """Mean length of a made-up sentence; with a peer, the length of the rows."""
    record: Path = RECORDS / "train_step.json"
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def contenders(arguments: Arguments, batches: list[Batch]) -> dict[str, Contender]:
    """Makes everything that is timed, ready for its first step."""
    config = arguments.settings
    found: dict[str, Contender] = {}
    for dtype in arguments.compute_dtypes:
        model = dataclasses.replace(config.model, compute_dtype=dtype)
        found[f"ours {dtype}"] = OurStep(dataclasses.replace(config, model=model), batches)
    if arguments.peer:
        params = jax.device_get(create_state(config, one_device()).params)
        steps = arguments.steps * (arguments.repeats + 1)
        for name in arguments.peer:
            prepare = partial(load_peer(name).prepare, config, params, batches, steps=steps)
            found |= {f"{name} {dtype}": prepare(dtype) for dtype in arguments.compute_dtypes}
    return found


def measure(arguments: Arguments, runners: dict[str, Contender], tokens: float) -> dict[str, Any]:
    """Times all `runners`; `tokens`: target tokens of a step."""
    turns = {name: partial(take_steps, each, arguments.steps) for name, each in runners.items()}
    results = {}
    for name, seconds in in_turns(turns, arguments.repeats).items():
        step, losses = seconds / arguments.steps, runners[name].losses()
        results[name] = {
            "target_tokens_per_second": tokens / step.median,
            "step_seconds_of_repeats": step.turns,
            # The first time and the last time through the batches.
            "first_losses": losses[:BATCHES],
            "last_losses": losses[-BATCHES:],
            "peak_bytes": runners[name].peak_bytes,
        }
    return results


def add_use_of_device(results: dict[str, Any], token_flops: float, peak: float | None) -> None:
    """Adds operations per second, and their share of the device's `peak` where that is known."""
    for result in results.values():
        result["flops_per_second"] = result["target_tokens_per_second"] * token_flops
        result["mfu"] = None if peak is None else result["flops_per_second"] / peak


def ratios(results: dict[str, Any]) -> dict[str, float]:
    """How many times as fast ours is: as each peer in the same type, and as itself in float32."""
    speed = {name: result["target_tokens_per_second"] for name, result in results.items()}
    found = {}
    for name in speed:
        ours = "ours bfloat16" if name == "ours float32" else f"ours {name.split()[1]}"
        if ours != name and ours in speed:
            found[f"{ours} / {name}"] = speed[ours] / speed[name]
    return found


def report(figures: dict[str, Any]) -> None:
    """Prints a line for each contender, then the ratios."""
    print(
        f"{figures['parameters']:,} parameters on {figures['device']}, "
        f"{figures['target_tokens_in_a_step']:,.0f} target tokens per step\n{FORMULA}"
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


def collect(
    arguments: Arguments, batches: list[Batch], runners: dict[str, Contender]
) -> dict[str, Any]:
    """Measures, and says what was measured."""
    config, device = arguments.settings, jax.devices()[0]
    params = next(each for each in runners.values() if isinstance(each, OurStep)).state.params
    tokens = float(np.mean([(batch.target_segments > 0).sum() for batch in batches]))
    results = measure(arguments, runners, tokens)
    peak = CHIPS[device.device_kind].flops if device.device_kind in CHIPS else None
    # Slots of padding are no work done: a token counts as a slot does.
    slots = config.batch.rows * config.batch.target_length
    token_flops = model_flops(config, params).matrices / slots
    add_use_of_device(results, token_flops, peak)
    return {
        "device": device.device_kind,
        "model": dataclasses.asdict(config.model),
        "batch": dataclasses.asdict(config.batch),
        "vocabulary_size": config.tokenizer.vocabulary_size,
        "packed": not arguments.peer,
        "parameters": count_parameters(params),
        "target_tokens_in_a_step": tokens,
        "flops_of_a_target_token": token_flops,
        "peak_flops_of_device": peak,
        "formula": FORMULA,
        "results": results,
        "ratios": ratios(results),
        # The most of the whole process: of everything that was timed together.
        "peak_resident_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def main(words: Sequence[str]) -> None:
    default = Arguments(settings=settings_before_flags(words))
    arguments = parse_arguments(Arguments, words, default)
    config = arguments.settings
    if arguments.peer:
        # Otherwise JAX takes most of a GPU's memory for itself, before its first use of it.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    peers = [load_peer(name) for name in arguments.peer]
    for peer in peers:
        peer.check(config)
    if peers:
        batches = full_batches(config, BATCHES)
    else:
        batches = packed_batches(config, BATCHES, arguments.sentence_tokens)
    figures = collect(arguments, batches, contenders(arguments, batches))
    report(figures)
    packages = [package for peer in peers for package in peer.PACKAGES]
    append_record(arguments, ["jax", "jaxlib", "flax", "optax", *packages], figures)


if __name__ == "__main__":
    run_command(main)
