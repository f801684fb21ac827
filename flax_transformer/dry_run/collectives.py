"""What the chips send to each other in a step, read from the compiled program."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

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
    crossing: float = 0.0
    """Bytes that a chip's network card sends to other hosts. A group with m members on each host
    forms m rings, each through another card, so that a card sends an m-th of what a chip sends; in
    an all-to-all each chip sends its own (n-m)/n B."""


def collectives(
    program: Program, devices: int, per_host: int | None = None
) -> dict[str, Collectives]:
    """Returns the collectives of a step by kind, those that never occur left out.

    per_host  devices that links join, one after the other in the mesh; None: all of them

    A start and its done count as one; so do the fusions over which a TPU program spreads one.
    """
    totals = {kind: Collectives() for kind in KINDS}
    for computation, times in program.runs():
        for kind, each, inside in _found(program, computation):
            group = first_group(each.attributes, devices)
            size = _whole_bytes(kind, each, inside, len(group))
            total = totals[kind]
            total.count += times
            total.bytes += times * size
            total.sent += times * size * _share_sent(kind, len(group))
            total.crossing += times * size * _share_crossing(kind, group, per_host or devices)
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


def _share_crossing(kind: str, group: list[int], per_host: int) -> float:
    hosts = [member // per_host for member in group]
    if len(set(hosts)) == 1:
        return 0.0
    together = max(map(hosts.count, hosts))
    if kind == "all-to-all":
        return (len(group) - together) / len(group)
    if kind == "collective-permute":  # some chip sends all that it has
        return 1.0
    return _share_sent(kind, len(group)) / together


def first_group(attributes: str, devices: int) -> list[int]:
    """Returns which devices take part in one collective together; all where nothing is said.

    There are three ways to write its groups: {{0,1},{2,3}}, [2,2]<=[2,2]T(1,0), and
    mesh['a'=2,'b'=2] {'a'}. Of several groups the first is returned, since all are alike.
    """
    found = re.search(r"replica_groups=(.*)", attributes)
    if not found:
        return list(range(devices))
    text = found[1]
    if explicit := re.match(r"\{\{([\d,]+)\}", text):
        return [int(member) for member in explicit[1].split(",")]
    if shape := re.match(r"\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        order = np.arange(int(shape[1]) * int(shape[2])).reshape(_numbers(shape[3]))
        order = order.transpose(_numbers(shape[4])) if shape[4] else order
        return order.reshape(-1)[: int(shape[2])].tolist()
    if mesh := re.match(r"@?\w*\[(.*?)\]\s*\{(.*?)\}", text):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        own = re.findall(r"'([^']+)'", mesh[2])
        places = np.arange(math.prod(sizes.values())).reshape(*sizes.values())
        return places[tuple(slice(None) if x in own else 0 for x in sizes)].reshape(-1).tolist()
    return list(range(devices))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
