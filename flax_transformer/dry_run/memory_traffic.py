"""Bytes that a compiled program moves between a chip and its main memory in a step.

Every instruction outside a fusion reads its operands and writes its results; inside a fusion
nothing touches memory. That is how the compiler counts too (`bytes accessed`), except that here

- loops count with their turns,
- arrays in the chip's own small memories count nothing,
- a slice of an array counts as the slice,
- an array that is updated in place counts as the update,
- a kernel counts as what it says that it moves, if that is more,
- the workspace of a call to cuBLAS or cuDNN counts nothing: nobody knows how much of it is used, or
  leaves the cache.
"""

import re
from collections.abc import Iterator

from flax_transformer.dry_run.program_text import Array, Computation, Instruction, Program

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
# Calls to NVIDIA's libraries. The last result of those with several is a workspace.
_LIBRARY_CALL = re.compile(r'custom_call_target="__cu(blas|dnn|b)\$')
_SLICES = {"dynamic-slice", "slice", "gather"}
_RENAMES = {"bitcast", "reshape"}
_UPDATES = {"dynamic-update-slice": 1, "scatter": -1}
"""Which operand takes its place in the first one, by operation."""


def bytes_moved(program: Program) -> int:
    """Returns the bytes to and from main memory, on one chip, in one step."""
    return sum(size for _, size in movements(program))


def movements(
    program: Program, start: Computation | None = None
) -> Iterator[tuple[Instruction, int]]:
    """Yields the instructions that touch main memory, each with its bytes in one step.

    start: by default all of the program; else a computation, such as the body of a loop
    """
    found: dict[str, list[tuple[Instruction, int]]] = {}
    for computation, times in program.runs(start):
        if computation.name not in found:
            sizes = (
                (each, _instruction_bytes(program, computation, each))
                for each in computation.instructions.values()
            )
            found[computation.name] = [(each, size) for each, size in sizes if size]
        for each, size in found[computation.name]:
            yield each, times * size


def _instruction_bytes(program: Program, computation: Computation, each: Instruction) -> int:
    operands = [computation.instructions[name] for name in each.operands]
    if each.opcode in _FREE or _PLACES.search(each.attributes):
        return 0
    if each.opcode in ("copy-done", "slice-done", "dynamic-slice-done"):
        source = computation.instructions[operands[0].operands[0]]
        return _held(each) + (sum(x.bytes for x in each.arrays) if _held(source) else 0)
    if each.opcode.endswith("-done"):  # of a collective, which was counted where it starts
        return 0
    if each.opcode in ("fusion", "fusion-start"):
        inside = program.computations[each.called("calls")[0]]
        read = sum(
            min(_held(operand), _bytes_read(program, inside, parameter))
            for operand, parameter in zip(operands, inside.parameters, strict=True)
        )
        return read + _bytes_written(program, inside, each)
    if each.opcode in _SLICES:
        return 2 * _held(each)
    if each.opcode in _UPDATES:
        return 2 * _held(operands[_UPDATES[each.opcode]])
    estimate = _ESTIMATE.search(each.attributes)
    read = sum(_held(operand) for operand in operands)
    once = read + sum(x.bytes for x in _without_workspace(each) if x.space == 0)
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
        elif user.opcode in _UPDATES and user.operands[0] == value.name:
            if user.opcode == "scatter":  # which adds, as a rule
                read += _update_bytes(inside, user)
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
    if root.opcode == "tuple":
        written = [
            _result_bytes(program, inside, inside.instructions[name]) for name in root.operands
        ]
    elif _LIBRARY_CALL.search(root.attributes):
        made = [array.bytes for array in _without_workspace(root)]
        written = made + [0] * (len(root.arrays) - len(made))
    else:
        written = [_result_bytes(program, inside, root)]
    if len(written) != len(fusion.results):
        return sum(array.bytes for array in fusion.results if array.space == 0)
    return sum(
        min(array.bytes, size)
        for array, size in zip(fusion.results, written, strict=True)
        if array.space == 0
    )


def _result_bytes(program: Program, inside: Computation, result: Instruction) -> int:
    """Returns the bytes that are written of `result`, which the computation of a fusion returns."""
    while result.opcode in _RENAMES:
        result = inside.instructions[result.operands[0]]
    if result.opcode in _UPDATES:
        return _update_bytes(inside, result)
    if result.opcode == "fusion":
        inner = program.computations[result.called("calls")[0]]
        if inner.root.opcode != "tuple":
            return _result_bytes(program, inner, inner.root)
    if result.opcode == "get-tuple-element":
        call = inside.instructions[result.operands[0]]
        if _LIBRARY_CALL.search(call.attributes):
            place, arrays = result.tuple_index, _without_workspace(call)
            return arrays[place].bytes if place < len(arrays) else 0
    return sum(array.bytes for array in result.arrays)


def _update_bytes(inside: Computation, each: Instruction) -> int:
    update = inside.instructions[each.operands[_UPDATES[each.opcode]]]
    return sum(array.bytes for array in update.arrays)


def _without_workspace(each: Instruction) -> list[Array]:
    """Returns what an instruction makes, of a call to one of NVIDIA's libraries no workspace."""
    is_call = len(each.results) > 1 and _LIBRARY_CALL.search(each.attributes)
    return each.results[:-1] if is_call else each.results
