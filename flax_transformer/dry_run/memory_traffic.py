"""Bytes that a compiled program moves between a chip and its main memory in a step.

Every instruction outside a fusion reads its operands and writes its results; inside a fusion
nothing touches memory. That is how the compiler counts too (`bytes accessed`), except that here

- loops count with their turns,
- arrays in the chip's own small memories count nothing,
- a slice of an array counts as the slice,
- a kernel counts as what it says that it moves, if that is more.
"""

import re

from flax_transformer.dry_run.program_text import Computation, Instruction, Program

_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call",
    "conditional", "after-all", "partition-id", "replica-id", "opt-barrier", "add-dependency",
    "async-start", "async-update", "async-done", "copy-start", "slice-start",
    "dynamic-slice-start",
}  # fmt: skip
# Custom calls that stand for a place in memory or for another name of one.
_PLACES = re.compile(r'custom_call_target="(AllocateBuffer|ConcatBitcast|PinnedBuffer|Sharding)"')
# What a kernel says of itself: it may read an array several times.
_ESTIMATE = re.compile(r'"cost_estimate":\{[^}]*"bytes_accessed":"(\d+)"')
_SLICES = {"dynamic-slice", "slice", "gather"}
_RENAMES = {"bitcast", "reshape"}


def bytes_moved(program: Program) -> int:
    """Returns the bytes to and from main memory, on one chip, in one step."""
    moved = {}
    total = 0
    for computation, times in program.runs():
        if computation.name not in moved:
            moved[computation.name] = sum(
                _instruction_bytes(program, computation, each)
                for each in computation.instructions.values()
            )
        total += times * moved[computation.name]
    return total


def _instruction_bytes(program: Program, computation: Computation, each: Instruction) -> int:
    operands = [computation.instructions[name] for name in each.operands]
    if each.opcode in _FREE or _PLACES.search(each.attributes):
        return 0
    if each.opcode in ("copy-done", "slice-done", "dynamic-slice-done"):
        source = computation.instructions[operands[0].operands[0]]
        return _held(each) + (sum(x.bytes for x in each.arrays) if _held(source) else 0)
    if each.opcode.endswith("-done"):  # of a collective, which was counted where it starts
        return 0
    if each.opcode == "fusion":
        inside = program.computations[each.called("calls")[0]]
        read = sum(
            min(_held(operand), _bytes_read(program, inside, parameter))
            for operand, parameter in zip(operands, inside.parameters, strict=True)
        )
        return read + _bytes_written(program, inside, each)
    if each.opcode in _SLICES:
        return 2 * _held(each)
    if each.opcode in ("dynamic-update-slice", "scatter"):
        return 2 * _held(operands[-1] if each.opcode == "scatter" else operands[1])
    estimate = _ESTIMATE.search(each.attributes)
    once = _held(each) + sum(_held(operand) for operand in operands)
    return max(once, int(estimate[1])) if estimate else once


def _held(each: Instruction) -> int:
    """Returns the bytes of an instruction's result that lie in main memory."""
    return sum(array.bytes for array in each.arrays if array.space == 0)


def _bytes_read(program: Program, inside: Computation, value: Instruction) -> int:
    """Returns the bytes of `value`, an operand of a fusion, that its computation `inside` reads."""
    whole = sum(array.bytes for array in value.arrays)
    read = 0
    for user in inside.users[value.name]:
        if user.opcode in _SLICES and user.operands[0] == value.name:
            read += sum(array.bytes for array in user.arrays)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == value.name:
            continue  # written in place
        elif user.opcode in _RENAMES:
            read += _bytes_read(program, inside, user)
        elif user.opcode == "fusion":
            inner = program.computations[user.called("calls")[0]]
            for name, parameter in zip(user.operands, inner.parameters, strict=True):
                if name == value.name:
                    read += _bytes_read(program, inner, parameter)
        else:
            return whole
    return min(read, whole)


def _bytes_written(program: Program, inside: Computation, fusion: Instruction) -> int:
    """Returns the bytes that a fusion writes: of an array updated in place only the update."""
    root = inside.root
    results = [inside.instructions[x] for x in root.operands] if root.opcode == "tuple" else [root]
    if len(results) != len(fusion.arrays):
        return _held(fusion)
    written = 0
    for array, result in zip(fusion.arrays, results, strict=True):
        if array.space == 0:
            written += min(array.bytes, _result_bytes(program, inside, result))
    return written


def _result_bytes(program: Program, inside: Computation, result: Instruction) -> int:
    while result.opcode in _RENAMES:
        result = inside.instructions[result.operands[0]]
    if result.opcode == "dynamic-update-slice":
        update = inside.instructions[result.operands[1]]
        return sum(array.bytes for array in update.arrays)
    if result.opcode == "fusion":
        inner = program.computations[result.called("calls")[0]]
        if inner.root.opcode != "tuple":
            return _result_bytes(program, inner, inner.root)
    return sum(array.bytes for array in result.arrays)
