"""Reads the text of a compiled program: its instructions, and how often each of them runs.

The compiler's own sums count the body of a loop once, however many turns it takes. But a model
whose layers are scanned does nearly everything in loops.

Source: the grammar of openxla.org/xla, "HLO text" (hlo_parser.cc).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"(\w+)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_HEADER = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"\s+(ROOT )?%([\w.\-]+) = ")
# Values that are another's under a new name.
_ALIASES = ("bitcast", "copy", "convert", "reshape", "get-tuple-element")


@dataclass(frozen=True)
class Array:
    """One array of a program, as it lies in memory."""

    bytes: int
    """With the padding of the tiles that a TPU stores."""
    space: int
    """0 is the device's main memory; others are small memories inside the chip."""


@dataclass(frozen=True)
class Instruction:
    """`name` = `opcode`(`operands`), `attributes`."""

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    literal: str
    """The text between the brackets after the opcode."""
    attributes: str
    is_root: bool

    @cached_property
    def arrays(self) -> list[Array]:
        """The result of the instruction; several arrays where that is a tuple."""
        return [_array(*found.groups()) for found in _ARRAY.finditer(self.shape)]

    @cached_property
    def results(self) -> list[Array]:
        """What the instruction itself makes.

        The start of something asynchronous has its operands among `arrays` too: (operand, result,
        ...), or ((operands), results, context).
        """
        if not self.opcode.endswith("-start"):
            return self.arrays
        if self.shape.startswith("("):
            after = self.shape[len(_bracketed(self.shape)) + 2 :]
            found = [_array(*found.groups()) for found in _ARRAY.finditer(after)]
            return found if self.opcode == "all-gather-start" else found[:-1]
        return self.arrays if self.opcode == "all-reduce-start" else self.arrays[1:2]

    @property
    def tuple_index(self) -> int:
        """Which element of its operand a get-tuple-element takes."""
        found = re.search(r"index=(\d+)", self.attributes)
        assert found is not None
        return int(found[1])

    def called(self, attribute: str) -> list[str]:
        """Returns the names of the computations in `attribute`: calls, body, condition or such."""
        found = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%[\w.\-]+)", self.attributes)
        return _NAME.findall(found[1]) if found else []


@dataclass
class Computation:
    """Instructions by name, in order."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @cached_property
    def root(self) -> Instruction:
        return next(each for each in self.instructions.values() if each.is_root)

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that take each value."""
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for each in self.instructions.values():
            for operand in dict.fromkeys(each.operands):
                users.setdefault(operand, []).append(each)
        return users

    @cached_property
    def parameters(self) -> list[Instruction]:
        """The parameters, in the order of the caller's operands."""
        found = [x for x in self.instructions.values() if x.opcode == "parameter"]
        return sorted(found, key=lambda each: int(each.literal))


class Program:
    """A compiled program. `unknown_loops` are those whose turns could not be read: they count
    once."""

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.unknown_loops: set[str] = set()
        current = None
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = self.computations[header[2]] = Computation(header[2])
                if header[1]:
                    self.entry = current
            elif current is not None and (instruction := _instruction(line)):
                current.instructions[instruction.name] = instruction

    def runs(self, start: Computation | None = None) -> Iterator[tuple[Computation, int]]:
        """Yields every computation that runs on its own, not inside a fusion, and how often.

        One that is called from several places comes several times. Of branches each counts once.

        start: by default the whole program; else a computation, which runs once
        """
        yield from self._runs(start or self.entry, 1)

    def _runs(self, computation: Computation, times: int) -> Iterator[tuple[Computation, int]]:
        yield computation, times
        for each in computation.instructions.values():
            turns = times
            if each.opcode == "while":
                turns *= self._turns(computation, each)
                names = each.called("body")
            elif each.opcode == "call":
                names = each.called("to_apply")
            elif each.opcode == "async-start":
                names = each.called("calls")
            elif each.opcode == "conditional":
                names = each.called("branch_computations")
                names += each.called("true_computation") + each.called("false_computation")
            else:
                continue
            for name in names:
                yield from self._runs(self.computations[name], turns)

    def _turns(self, computation: Computation, loop: Instruction) -> int:
        """Returns a loop's turns as the compiler noted them.

        Where it did not, they follow from a condition `index < bound` and the index's steps.
        """
        if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(noted[1])
        condition = self.computations[loop.called("condition")[0]]
        body = self.computations[loop.called("body")[0]]
        compare = condition.root
        if compare.opcode == "compare" and "direction=LT" in compare.attributes:
            index, bound = (_origin(condition, name) for name in compare.operands)
            if index.opcode == "get-tuple-element" and bound.opcode == "constant":
                place = index.tuple_index
                start = self._constant(computation, _element(computation, loop, place))
                step = self._step(body, place)
                if start is not None and step:
                    return max(0, math.ceil((int(bound.literal) - start) / step))
        self.unknown_loops.add(loop.name)
        return 1

    def _step(self, body: Computation, place: int) -> int | None:
        """Returns what a turn adds to the element at `place` of the loop's tuple."""
        new = _origin(body, body.root.operands[place])
        if new.opcode != "add":
            return None
        terms = [_origin(body, name) for name in new.operands]
        constants = [int(term.literal) for term in terms if term.opcode == "constant"]
        return constants[0] if len(constants) == 1 else None

    @staticmethod
    def _constant(computation: Computation, value: Instruction | None) -> int | None:
        if value is None or value.opcode != "constant":
            return None
        return int(value.literal)


def _instruction(line: str) -> Instruction | None:
    found = _LINE.match(line)
    if not found:
        return None
    shape, rest = _split_shape(line[found.end() :])
    opcode, _, rest = rest.partition("(")
    inside = _bracketed("(" + rest)
    operands = tuple(_NAME.findall(inside))
    attributes = rest[len(inside) + 1 :]
    return Instruction(
        found[2], opcode.strip(), shape, operands, inside, attributes, bool(found[1])
    )


def _split_shape(text: str) -> tuple[str, str]:
    """Returns the type at the head of `text`, and what comes after it."""
    if text.startswith("("):
        inside = _bracketed(text)
        return inside, text[len(inside) + 2 :].lstrip()
    shape, _, rest = text.partition(" ")
    return shape, rest


def _bracketed(text: str) -> str:
    """Returns what stands between the bracket that opens `text` and the one that closes it."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:place]
    return text[1:]


def _array(kind: str, dimensions: str, layout: str | None) -> Array:
    sizes = [int(size.lstrip("<=")) for size in dimensions.split(",") if size]
    order, _, storage = (layout or "").partition(":")
    space = re.search(r"S\((\d+)\)", storage)
    if sizes and (tile := re.match(r"T\(([\d,]+)\)", storage)):
        by_minor = [int(axis) for axis in order.split(",")]
        for axis, unit in zip(by_minor, reversed(tile[1].split(",")), strict=False):
            sizes[axis] = math.ceil(sizes[axis] / int(unit)) * int(unit)
    bits = _BITS.get(kind)
    if bits is None:  # s32, f8e4m3fn, u4
        bits = int(re.findall(r"\d+", kind)[0])
    return Array(math.prod(sizes) * bits // 8, int(space[1]) if space else 0)


def _element(computation: Computation, loop: Instruction, place: int) -> Instruction | None:
    """Returns what stands at `place` of the tuple with which a loop begins."""
    start = computation.instructions[loop.operands[0]]
    if start.opcode != "tuple":
        return None
    return _origin(computation, start.operands[place])


def _origin(computation: Computation, name: str) -> Instruction:
    """Returns the instruction that made a value, past those that only rename it.

    An element of a parameter is its own origin.
    """
    each = computation.instructions[name]
    while each.opcode in _ALIASES and each.operands:
        before = computation.instructions[each.operands[0]]
        if each.opcode == "get-tuple-element" and before.opcode != "tuple":
            break
        if each.opcode == "get-tuple-element":
            before = computation.instructions[before.operands[each.tuple_index]]
        each = before
    return each
