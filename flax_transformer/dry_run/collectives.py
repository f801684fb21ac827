"""What the chips send to each other in a step, read from the compiled program."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from flax_transformer.dry_run.program_text import Computation, Instruction, Program

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass
class Collectives:
    """All collectives of one kind in a step, as one chip sees them."""

    count: int = 0
    """How often one runs, every turn of a loop counted."""
    bytes: int = 0
    """Sizes of the whole arrays: the sum that every chip gets, what all gather, what is summed
    and then scattered."""
    sent: float = 0.0
    """Bytes that a chip sends in the best algorithm, a ring, of an array of B bytes among n chips:
    all-reduce                               2 (n-1)/n B
    all-gather, reduce-scatter, all-to-all     (n-1)/n B
    permutation                                        B"""


def collectives(program: Program, devices: int) -> dict[str, Collectives]:
    """Returns the collectives of a step by kind, those that never occur left out.

    A start and its done count as one; so do the fusions over which a TPU program spreads one.
    """
    totals = {kind: Collectives() for kind in KINDS}
    for computation, times in program.runs():
        for kind, each, inside in _found(program, computation):
            members = group_size(each.attributes, devices)
            size = _whole_bytes(kind, each, inside, members)
            total = totals[kind]
            total.count += times
            total.bytes += times * size
            total.sent += times * size * _share_sent(kind, members)
    return {kind: total for kind, total in totals.items() if total.count}


def _found(
    program: Program, computation: Computation
) -> Iterator[tuple[str, Instruction, Computation]]:
    """Yields collectives of a computation and of the fusions in it, with where they stand."""
    for each in computation.instructions.values():
        kind = each.opcode.removesuffix("-start")
        if kind in KINDS:
            # A TPU program scatters sums in a fusion of an all-reduce with a slice of it.
            scatters = kind == "all-reduce" and "all-reduce-scatter" in computation.name
            if not _goes_on(each, computation):
                yield ("reduce-scatter" if scatters else kind), each, computation
        elif each.opcode == "fusion":
            for name in each.called("calls"):
                yield from _found(program, program.computations[name])


def _goes_on(each: Instruction, computation: Computation) -> bool:
    """Returns whether this continues a collective that a TPU program spreads over fusions."""
    if "async_collective_fusion_config" not in each.attributes:
        return False
    return not any(
        "AsyncCollectiveStart" in x.attributes for x in computation.instructions.values()
    )


def _whole_bytes(kind: str, each: Instruction, computation: Computation, members: int) -> int:
    operands = [computation.instructions[name] for name in each.operands]
    size = sum(array.bytes for operand in operands for array in operand.arrays)
    return size * members if kind == "all-gather" else size


def _share_sent(kind: str, members: int) -> float:
    if kind == "collective-permute":
        return 1.0
    return (2 if kind == "all-reduce" else 1) * (members - 1) / members


def group_size(attributes: str, devices: int) -> int:
    """Returns how many devices take part in one collective; all of them where nothing is said.

    There are three ways to write its groups: {{0,1},{2,3}}, [2,2]<=[4], and
    mesh['a'=2,'b'=2] {'a'}.
    """
    found = re.search(r"replica_groups=(.*)", attributes)
    if not found:
        return devices
    text = found[1]
    if explicit := re.match(r"\{\{([\d,]+)\}", text):
        return explicit[1].count(",") + 1
    if shape := re.match(r"\[(\d+),(\d+)\]", text):
        return int(shape[2])
    if mesh := re.match(r"@?\w*\[(.*?)\]\s*\{(.*?)\}", text):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        return math.prod(sizes[name] for name in re.findall(r"'([^']+)'", mesh[2]))
    return devices
