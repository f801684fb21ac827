"""A dry run: the training step, or a beam search, is compiled and judged; nothing is computed."""

import math
import textwrap
from typing import Any

import jax

from flax_transformer.config import Config
from flax_transformer.dry_run.chips import CHIPS, Chip, interconnect_bandwidth
from flax_transformer.dry_run.compilation import Memory, Step, TooLarge, compile_step
from flax_transformer.dry_run.remedies import remedies
from flax_transformer.dry_run.roofline import roofline, utilisation
from flax_transformer.dry_run.search import Search, compile_search
from flax_transformer.dry_run.topology import topology_devices


def judge(config: Config, topology: str | None, program: str = "training-step") -> None:
    """Compiles a program for `topology`, or for the devices at hand, and prints what it needs.

    program: training-step, or beam-search

    Raises `UserError` for a topology, mesh or rows that cannot be used.
    """
    devices = jax.devices() if topology is None else topology_devices(topology)
    chip = CHIPS.get(devices[0].device_kind)
    name = chip.name if chip else devices[0].device_kind
    words = program.replace("-", " ")
    print(f"Compiling the {words} for {len(devices)} x {name}...", flush=True)
    if program == "beam-search":
        return _judge_search(config, devices, chip, topology is not None)
    step = compile_step(config, devices)
    print("\n".join([*describe_work(step), *describe_memory(step, chip)]), flush=True)
    if chip is None:
        print(f"\nno time is estimated: what {name} can do is not in the table of chips")
    elif not isinstance(step.memory, TooLarge):
        print("\n".join(describe_roofline(step, chip)))
    if topology is not None and devices[0].platform == "gpu":
        print("\n".join(describe_unknown(step)))
    if fits(step, chip) is False:
        print("\nto make it fit (each proposal is compiled, to be sure)...", flush=True)
        print("\n".join(describe_remedies(step, chip, devices)))


def _judge_search(config: Config, devices: Any, chip: Chip | None, is_absent: bool) -> None:
    print("\n".join(describe_search(compile_search(config, devices), chip)))
    if is_absent and devices[0].platform == "gpu":
        print("not known without the GPU: the time that each kernel takes to start, and kernels")
        print("that it would choose for products by timing them")


def fits(step: Step, chip: Chip | None) -> bool | None:
    """Returns whether a chip has enough memory; None where that is not known."""
    if isinstance(step.memory, TooLarge):
        return False
    return None if chip is None else step.memory.total <= chip.memory


def available(step: Step, chip: Chip | None) -> float:
    """Returns the bytes of memory of a chip; without limit where that is not known."""
    if isinstance(step.memory, TooLarge):
        return step.memory.available
    return chip.memory if chip else math.inf


def describe_work(step: Step) -> list[str]:
    """Describes what a step does, by formula, as traced and as compiled."""
    batch, mesh = step.config.batch, step.mesh
    sizes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    lines = [
        f"mesh: {sizes}; {batch.rows} rows of {batch.source_length} + {batch.target_length} slots "
        f"per step, {step.target_tokens:,} target slots",
        f"parameters: {step.parameters:,}",
        "",
        "operations per step, all chips together",
        _line("model", _scaled(step.model_flops.matrices, "FLOP"),
              "6 x every number of encoder, decoder and output matrix x its positions"),
        _line("attention scores", _scaled(step.model_flops.scores, "FLOP"),
              "12 d x pairs of query and key, masked ones too; not part of MFU"),
        _line("program", _scaled(step.traced_flops, "FLOP"),
              "its matrix products, those that remat repeats included"),
    ]  # fmt: skip
    if isinstance(step.memory, TooLarge):
        return lines
    if step.compiler_flops:
        lines.append(_line("by the compiler", _scaled(step.compiler_flops * mesh.size, "FLOP"),
                           "all operations, each loop's body counted once"))  # fmt: skip
    return [*lines, *_describe_traffic(step)]


def _describe_traffic(step: Step) -> list[str]:
    lines = [
        "",
        "traffic per step and chip",
        _line("memory", _scaled(step.bytes_moved, "B"), "every turn of a loop counted"),
    ]
    parts = sorted(step.moved_by_part.items(), key=lambda part: -part[1])
    lines += [_line(f"  {name}", _scaled(size, "B"), "") for name, size in parts]
    if step.compiler_bytes:
        lines.append(_line("by the compiler", _scaled(step.compiler_bytes, "B"),
                           "each loop's body counted once"))  # fmt: skip
    for kind, each in step.collectives.items():
        text = f"{each.count:,}, together {_scaled(each.bytes, 'B')}"
        if each.crossing:
            text += f"; {_scaled(each.crossing, 'B')} through its network card"
        lines.append(_line(kind, _scaled(each.sent, "B"), f"sent, in {text}"))
    if not step.collectives:
        lines.append(_line("collectives", "none", ""))
    if step.unknown_loops:
        lines.append(f"  {step.unknown_loops} loops of unknown length are counted as one turn")
    return lines


def describe_memory(step: Step, chip: Chip | None) -> list[str]:
    """Describes what a step needs of a chip's memory, and whether the chip has that."""
    lines = ["", "memory per chip"]
    memory = step.memory
    if isinstance(memory, TooLarge):
        return [
            *lines,
            _line("state", _gib(step.state_bytes), "parameters and optimizer state"),
            _line("total", _gib(memory.needed), f"of {_gib(memory.available)}: does not fit"),
        ]
    lines += [
        _line("arguments", _gib(memory.arguments), "parameters, optimizer state, batch"),
        _line("temporaries", _gib(memory.temporaries), ""),
        _line("outputs", _gib(memory.outputs), "those that reuse no argument's memory"),
        _line("program", _gib(memory.code), ""),
    ]
    verdict = "fits" if fits(step, chip) else "does not fit"
    room = f"of {_gib(chip.memory)}: {verdict}" if chip else ""
    return [*lines, _line("total", _gib(memory.total), room)]


def describe_roofline(step: Step, chip: Chip) -> list[str]:
    """Describes the least time of a step, and what follows from it."""
    least = roofline(step, chip)
    links = interconnect_bandwidth(chip, list(step.mesh.devices.flat))
    lines = [
        "",
        "least time per step, with everything at its peak and at the same time",
        _line("matrix products", _ms(least.products), f"at {_scaled(chip.flops, 'FLOP/s')}"),
        _line("memory", _ms(least.memory), f"at {_scaled(chip.memory_bandwidth, 'B/s')}"),
    ]
    if links:
        lines.append(
            _line("interconnect", _ms(least.interconnect),
                  f"at {_scaled(links, 'B/s')}; ring: 2(n-1)/n of the bytes for an all-reduce "
                  "among n chips, (n-1)/n for the others")
        )  # fmt: skip
    if least.network:
        speed = f"at {_scaled(chip.network_bandwidth, 'B/s')} a GPU, between hosts"
        lines.append(_line("network", _ms(least.network), speed))
    tokens = step.target_tokens / least.seconds
    return [
        *lines,
        f"bound by {least.bound}: {_ms(least.seconds).strip()} per step at least, so at most "
        f"{tokens:,.0f} target tokens/s and {utilisation(step, chip, least.seconds):.1%} MFU",
    ]


def describe_unknown(step: Step) -> list[str]:
    """Describes what compiling does not tell of GPUs that are not there."""
    said = [
        "not known without the GPU: kernels that it would choose for products by timing them, its "
        "clock under load, gaps between kernels, and what collectives take"
    ]
    if step.unplanned:
        said.append(
            f"cuDNN has made no plans here ({step.unplanned}): whether it takes these calls is not "
            "known, and the temporaries lack its workspace, as large as the queries in float32"
        )
    return [line for each in said for line in textwrap.wrap(each, 96)]


def describe_search(found: Search, chip: Chip | None) -> list[str]:
    """Describes what a position of a search moves, by the room in its cache."""
    beams, slots = found.config.decoding.beam_size, found.source_length
    lines = [
        f"{found.rows:,} sentences of {slots} source slots on each chip; {beams} beams",
        "",
        "one position of all beams, on a chip",
        f"  {'room in the cache':<20}{'memory':>12}{'weights + cache':>18}{'kernels':>9}",
    ]
    for each in found.positions:
        room, kernels = f"{each.room:,} positions", f"{each.kernels:,}"
        moved, floor = _scaled(each.bytes_moved, "B"), _scaled(each.floor, "B")
        line = f"  {room:<20}{moved:>12}{floor:>18}{kernels:>9}"
        if chip:
            seconds = found.seconds(each, chip)
            tokens = found.rows * found.mesh.size / seconds
            line += f"  at least {_ms(seconds)}, so at most {tokens:,.0f} target tokens/s"
        lines.append(line)
    return [*lines, "weights + cache: each once, the least that a position can read"]


def describe_remedies(step: Step, chip: Chip | None, devices: Any) -> list[str]:
    """Describes settings with which the step would fit, compiled to be sure."""
    lines = []
    for remedy in remedies(step, available(step, chip)):
        tried = compile_step(remedy.config, devices)
        good = fits(tried, chip)
        needs = tried.memory.total if isinstance(tried.memory, Memory) else tried.memory.needed
        outcome = "verified" if good else "not enough"
        lines.append(f"  {remedy.flags}: {_gib(needs).strip()}, {outcome}; {remedy.price}")
        if good:
            return lines
    return [*lines, "  or fewer --batch.rows, or more chips"]


def _line(name: str, value: str, remark: str) -> str:
    return f"  {name:<20}{value:>12}  {remark}".rstrip()


def _scaled(value: float, unit: str) -> str:
    """Returns `value` with its `unit` and a decimal prefix."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:,.2f} {prefix}{unit}"
    return f"{value:,.0f} {unit}"


def _gib(value: float) -> str:
    return f"{value / 2**30:,.2f} GiB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms"
