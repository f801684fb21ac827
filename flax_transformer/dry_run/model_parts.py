"""Which parts of a model move the bytes of a step.

An instruction tells by its name: the modules, and the scopes in them, where it was traced. Of
operations that are fused the last one counts.
"""

import re
from collections import Counter

from flax_transformer.dry_run.memory_traffic import movements
from flax_transformer.dry_run.program_text import Instruction, Program

# The first that is found in a name counts.
_PARTS = {
    "loss": re.compile(r"cross_entropy"),
    "attention": re.compile(r"attention(_weights)?[/.]"),
    "feed-forward": re.compile(r"feed_forward/"),
    "normalisation": re.compile(r"/\w*norm/"),
    "dropout and sums": re.compile(r"(dropout|_residual)/"),  # around attention and feed-forward
    "embedding": re.compile(r"embedding"),
    "recurrent layers": re.compile(r"(encoder|decoder)"),
}
_REST = "optimizer and rest"
_NAME = re.compile(r'op_name="([^"]*)"')


def moved_by_part(program: Program) -> dict[str, int]:
    """Returns the bytes to and from main memory on one chip in one step, by part of the model."""
    moved: Counter[str] = Counter()
    for each, size in movements(program):
        moved[part_of(_name(program, each))] += size
    return dict(moved)


def part_of(name: str) -> str:
    """Returns the part of the model that a name such as jvp(...)/encoder/.../feed_forward/add has
    come from."""
    return next((part for part, words in _PARTS.items() if words.search(name)), _REST)


def _name(program: Program, each: Instruction) -> str:
    if found := _NAME.search(each.attributes):
        return found[1]
    names = ""
    if each.opcode in ("fusion", "fusion-start"):
        inside = program.computations[each.called("calls")[0]]
        for inner in inside.instructions.values():
            names = _name(program, inner) or names
    return names
