"""A beam search as a tree: from left to right its steps, from top to bottom the best candidates.

Letters: w beam width.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from flax_transformer.inspection.drawing import (
    BLUE,
    GREEN,
    VERMILLION,
    Picture,
    new_picture,
    shorten,
)

if TYPE_CHECKING:
    from flax_transformer.inspection.search_tree import SearchNode, SearchTree

_COLUMN, _ROW = 1.0, 0.5
"""Inches that a candidate takes."""

_LOOKS: dict[str, dict] = {
    "live": {"edgecolor": BLUE, "facecolor": "#e6f1f8", "linewidth": 1.1},
    "finished": {"edgecolor": GREEN, "facecolor": "#e0f4ec", "linewidth": 1.6},
    "pruned": {"edgecolor": "#bdbdbd", "facecolor": "white", "linewidth": 0.7, "linestyle": "--"},
}
_WORDS = {
    "live": "live: goes on",
    "finished": "finished: ends here",
    "pruned": "pruned: not among the best",
}
_BEFORE = -1
"""The step of the empty beginning, from which the first candidates come."""


class Place(NamedTuple):
    """A candidate: its step, and its rank among those of the step."""

    step: int
    rank: int


def plot_search(tree: "SearchTree", *, steps_per_line: int = 12) -> Picture:
    """Returns the picture of the search that `tree` records.

    steps_per_line: after so many steps the tree goes on below
    """
    lines = list(_lines(len(tree.steps), steps_per_line))
    columns = max(len(line) for line in lines)
    ranks = max((len(step) for step in tree.steps), default=1)
    height = ranks + 1.1
    pieces = "".join({node.piece for step in tree.steps for node in step})
    size = (0.6 + columns * _COLUMN, 1.2 + len(lines) * height * _ROW)
    with new_picture(max(size[0], 7.0), size[1], pieces) as picture:
        axes = picture.subplots()
        best = set(best_path(tree))
        for number, line in enumerate(lines):
            _draw_line(axes, tree, line, -number * height, best)
        axes.set(xlim=(-0.6, columns - 0.4), ylim=(-len(lines) * height + 0.9, 1.2))
        axes.set_axis_off()
        picture.suptitle("Beam search")
        picture.legend(handles=_legend(), loc="outside lower center", ncols=4, fontsize=8)
    picture.describe(
        "Beam search (Section 6.1), step by step: in each column the candidates of a step, the "
        "most probable at the top, each with its score: the log probability of all up to it over "
        "the length penalty. Lines lead from the hypothesis that each goes on from.",
        f"Tree of a beam search of {len(tree.steps)} steps with up to {ranks} candidates each. The "
        "best translation's pieces: "
        + " ".join(tree.steps[place.step][place.rank].piece for place in best_path(tree))
        + ".",
    )
    return picture


def best_path(tree: "SearchTree") -> list[Place]:
    """Returns the places of the best hypothesis, first step first.

    It is the finished one (or, where none has finished, the live one) with the score of the best
    translation.
    """
    if not tree.steps:
        return []
    ends = [
        Place(step, rank)
        for step, nodes in enumerate(tree.steps)
        for rank, node in enumerate(nodes)
        if node.fate == "finished"
    ] or [Place(len(tree.steps) - 1, rank) for rank in range(len(tree.steps[-1]))]

    def node(place: Place) -> "SearchNode":
        return tree.steps[place.step][place.rank]

    if tree.hypotheses:
        score = tree.hypotheses[0].score
        place = min(ends, key=lambda end: abs(node(end).score - score))
    else:
        place = max(ends, key=lambda end: node(end).score)
    path = [place]
    while (parent := node(path[-1]).parent) is not None:
        path.append(Place(path[-1].step - 1, parent))
    return path[::-1]


def _lines(steps: int, most: int) -> Iterator[range]:
    """Yields the steps of each line, from that before the first on; every line after the first
    repeats the last step of the line above."""
    begins = _BEFORE
    while True:
        ends = min(begins + most + 1, steps)
        yield range(begins, ends)
        if ends >= steps:
            return
        begins = ends - 1


def _draw_line(axes: Axes, tree: "SearchTree", line: range, top: float, best: set[Place]) -> None:
    for column, step in enumerate(line):
        if step == _BEFORE:
            _box(axes, (column, top), "begin", "", _LOOKS["live"], False)
            continue
        forced = " (given)" if step < tree.prefix_length else ""
        axes.text(
            column, top + 0.62, f"step {step + 1}{forced}", fontsize=7, ha="center", color="0.4"
        )
        for rank, node in enumerate(tree.steps[step]):
            is_best = Place(step, rank) in best
            at = (column, top - rank)
            if column:
                _edge(axes, (column - 1, top - (node.parent or 0)), at, node.fate, is_best)
            _box(axes, at, shorten(node.piece, 10), f"{node.score:.2f}", _LOOKS[node.fate], is_best)


def _edge(axes: Axes, start, end, fate: str, is_best: bool) -> None:
    look = _LOOKS[fate]
    color = VERMILLION if is_best else look["edgecolor"]
    x = [start[0] + 0.36, start[0] + 0.46, end[0] - 0.46, end[0] - 0.36]
    y = [start[1], start[1], end[1], end[1]]
    axes.plot(
        x, y, color=color, linewidth=2.2 if is_best else look["linewidth"],
        zorder=3 if is_best else 0.5 if fate == "pruned" else 1, solid_joinstyle="round",
    )  # fmt: skip


def _box(axes: Axes, at, piece: str, score: str, look: dict, is_best: bool) -> None:
    x, y = at
    edge = {"edgecolor": VERMILLION, "linewidth": 2.2} if is_best else {}
    patch = Rectangle((x - 0.36, y - 0.38), 0.72, 0.76, **{**look, **edge}, joinstyle="round")
    patch.set_zorder(2)
    axes.add_patch(patch)
    ink = "#757575" if look is _LOOKS["pruned"] and not is_best else "black"
    axes.text(x, y + (0.14 if score else 0), piece, fontsize=8, ha="center", va="center", color=ink)
    axes.text(x, y - 0.2, score, fontsize=6.5, ha="center", va="center", color=ink)


def _legend() -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            color=look["edgecolor"],
            label=_WORDS[fate],
            linestyle=look.get("linestyle", "-"),
        )
        for fate, look in _LOOKS.items()
    ]
    return [*handles, Line2D([], [], color=VERMILLION, linewidth=2.2, label="the best translation")]
