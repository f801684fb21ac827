"""A model as figure 1 of the paper draws it, from the parameters and classes that it really has.

    python -m flax_transformer.inspection.model_diagram --config configs/wmt_base.py \\
        --output docs/transformer.svg --links ..

Every box links to the lines of its class.
"""

import argparse
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from flax_transformer.config import Config, RecurrentConfig
from flax_transformer.config.shipped import load_config_file
from flax_transformer.inspection.drawing import Picture, new_picture
from flax_transformer.inspection.model_parts import (
    Box,
    Sketch,
    Stage,
    sketch_model,
    source_link,
)

_COLORS = {
    "attention": "#fde3c8",
    "feed-forward": "#cfe8f7",
    "norm": "#f3f4c4",
    "embedding": "#fbdede",
    "recurrent": "#d9f0d9",
    "output": "#ffffff",
}
_INK = "#333333"
_WIDTH, _HEIGHT, _GAP = 5.6, 0.78, 0.34
_MARGIN = 0.24
"""Of a frame around what it holds."""


def plot_model(config: Config, *, links: str | None = None) -> Picture:
    """Returns the picture of the model that `config` describes; it need not be trained.

    links: what the addresses of classes begin with; see `source_link`
    """
    sketch = sketch_model(config)
    with new_picture(12.6, 1) as picture:
        drawing = _Drawing(picture.add_subplot(), links)
        right = _WIDTH + 1.9
        tops = {}
        for x, stack, stages in ((0.0, "s", sketch.encoder), (right, "t", sketch.decoder)):
            tops[stack] = drawing.column(x, stack, sketch.embedding, stages)
        drawing.connect(sketch, tops, right)
        drawing.output(right, tops["t"])
        top = drawing.finish(right)
        picture.set_size_inches(12.6, 0.86 * top)
        drawing.axes.set_title(_title(config, sketch), fontsize=10.5)
    kind = "recurrent encoder and decoder" if sketch.starts else "Transformer"
    picture.describe(
        "The model, drawn from its own parameters (figure 1 of the paper). Every box is a module: "
        "its parameters with their shapes, and how many numbers one layer of them holds; its name "
        "leads to the lines of its class.",
        f"Block diagram of a {kind} with {sketch.counted:,} parameters: "
        + "; ".join(_in_words(name, stages) for name, stages in _stacks(sketch)),
    )
    return picture


class _Drawing:
    """Boxes and arrows, in units of which a box is 5.6 wide."""

    def __init__(self, axes: Axes, links: str | None):
        self.axes = axes
        self._links = links
        self._middles: dict[str, float] = {}
        self._ends: dict[str, float] = {}
        self._top = 0.0

    def column(self, x: float, letter: str, embedding: Box, stages: tuple[Stage, ...]) -> float:
        """Draws encoder (s) or decoder (t) from the ids up; returns where it ends."""
        middle, encodes = x + _WIDTH / 2, letter == "s"
        ids = "source ids (b,s)" if encodes else "target ids (b,t), shifted right"
        self.axes.text(middle, -0.45, ids, ha="center", va="center", fontsize=9)
        self.arrow((middle, -0.28), (middle, 0))
        shown = embedding.parameters if encodes else "the same table"
        count = embedding.count if encodes else None
        first = Box(embedding.title, shown, count, embedding.module, embedding.group)
        self.box(x, 0, first, _WIDTH)
        below, label = _HEIGHT, f"(b,{letter},d)"
        y = below
        for stage in stages:
            y += 0.75 if label else _GAP
            y += _MARGIN if stage.framed else 0
            self.arrow((middle, below), (middle, y - _outside(stage, 0)), label)
            y = self.stage(x, y, stage, side=-1 if encodes else 1)
            below, label = y + _outside(stage, -1), ""
            y += _MARGIN if stage.framed else 0
        self._ends[letter] = below
        return y

    def stage(self, x: float, y: float, stage: Stage, side: int) -> float:
        """Draws the rows of a stage upwards from `y`; returns the top of the last."""
        top = y + len(stage.rows) * (_HEIGHT + _GAP) - _GAP
        if stage.framed:
            self._frame(x, y, top, stage, side)
        middle = x + _WIDTH / 2
        bottoms = [y + i * (_HEIGHT + _GAP) for i in range(len(stage.rows))]
        for bottom, row in zip(bottoms, stage.rows, strict=True):
            width = (_WIDTH - 0.2 * (len(row) - 1)) / len(row)
            for i, box in enumerate(row):
                self.box(x + i * (width + 0.2), bottom, box, width)
            if bottom > y:
                self.arrow((middle, bottom - _GAP), (middle, bottom))
        for start, end in stage.skips:
            post = stage.rows[end][0].group == "norm"
            into = bottoms[end] + (_HEIGHT / 2 if post else _HEIGHT + 0.3 * _GAP)
            self._skip(x, side, bottoms[start] - 0.35 * _GAP, into, post)
        return top

    def _frame(self, x: float, y: float, top: float, stage: Stage, side: int) -> None:
        frame = FancyBboxPatch(
            (x - 0.3, y - _MARGIN), _WIDTH + 0.6, top - y + 2 * _MARGIN,
            boxstyle="round,pad=0.02,rounding_size=0.2", facecolor="#f7f7f7", edgecolor="#999999",
        )  # fmt: skip
        self._link(frame, stage.module)
        self.axes.add_patch(frame)
        beside = x - 0.65 if side < 0 else x + _WIDTH + 0.65
        where = (beside, (y + top) / 2)
        self.axes.text(*where, f"{stage.turns} ×", fontsize=12, ha="center", va="center")

    def box(self, x: float, y: float, box: Box, width: float) -> None:
        patch = FancyBboxPatch(
            (x, y), width, _HEIGHT, boxstyle="round,pad=0.02,rounding_size=0.12",
            facecolor=_COLORS[box.group], edgecolor=_INK, linewidth=1.0,
        )  # fmt: skip
        self._link(patch, box.module)
        self.axes.add_patch(patch)
        title = self.axes.text(x + 0.15, y + _HEIGHT - 0.26, box.title, fontsize=9.5, weight="bold")
        self._link(title, box.module)
        narrow = width < _WIDTH
        if box.count is not None:
            count = f"{box.count:,}" if box.count else "no parameters"
            at = y + (_HEIGHT - 0.26 if narrow else 0.16)
            self.axes.text(x + width - 0.12, at, count, fontsize=8, ha="right", color="#222222")
        size = 6.4 if narrow else 7.2
        self.axes.text(x + 0.15, y + 0.16, box.parameters, fontsize=size, color="#444444")
        self._middles[box.title] = y + _HEIGHT / 2
        self._top = max(self._top, y + _HEIGHT)

    def _link(self, artist, module: type | None) -> None:
        if module is not None:
            artist.set_url(source_link(module, self._links))

    def arrow(self, start: tuple[float, float], end: tuple[float, float], label: str = "") -> None:
        style = {"arrowstyle": "-|>", "color": _INK, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}
        self.axes.annotate("", xy=end, xytext=start, arrowprops=style)
        if label:
            middle = ((start[0] + end[0]) / 2 + 0.1, (start[1] + end[1]) / 2)
            self.axes.text(*middle, label, fontsize=7.5, color=_INK, va="center")

    def _skip(self, x: float, side: int, start: float, into: float, post: bool) -> None:
        """Draws the way around a sub-layer: into the norm's side, or to the sum above it."""
        edge = x if side < 0 else x + _WIDTH
        outer, middle = edge + side * 0.17, x + _WIDTH / 2
        self._line(
            [(middle, start), (outer, start), (outer, into), (edge if post else middle, into)]
        )
        if post:
            self.arrow((outer, into), (edge, into))
        else:
            self.axes.plot(
                middle, into, marker="o", markersize=9, color=_INK, markerfacecolor="white"
            )
            self.axes.plot(middle, into, marker="+", markersize=7, color=_INK)

    def _line(self, points: list[tuple[float, float]], **look) -> None:
        self.axes.plot(*zip(*points, strict=True), color=_INK, linewidth=1.0, **look)

    def connect(self, sketch: Sketch, tops: dict[str, float], right: float) -> None:
        """Draws what the decoder gets of the encoder."""
        middle, height, gap = _WIDTH / 2, tops["s"] + 0.3, (_WIDTH + right) / 2
        if sketch.attends:
            into = self._middles[sketch.attends]
            self._line([(middle, self._ends["s"]), (middle, height), (gap, height), (gap, into)])
            self.arrow((gap, into), (right, into))
            self.axes.text(middle + 0.1, height + 0.1, "memory (b,s,d)", fontsize=7.5)
        if sketch.starts:
            start, into = tops["s"] - _MARGIN - _HEIGHT / 2, self._middles[sketch.starts]
            gap += 0.25
            path = [(_WIDTH + 0.32, start), (gap, start), (gap, into), (right - 0.36, into)]
            self._line(path, linestyle="--")
            self.arrow((right - 0.36, into), (right - 0.3, into))
            for text, place in (("last states", 0.1), ("(b,d)", -0.25)):
                self.axes.text(_WIDTH + 0.4, start + place, text, fontsize=7.5, color=_INK)

    def output(self, x: float, top: float) -> None:
        """Draws what becomes of the decoder's features, above its `top`."""
        middle, y = x + _WIDTH / 2, top + 0.6
        self.arrow((middle, self._ends["t"]), (middle, y), "(b,t,d)")
        title, formula = "Softmax over the tied embedding", "logits (b,t,v) = features · tableᵀ"
        self.box(x, y, Box(title, formula, None, None, "output"), _WIDTH)
        y += _HEIGHT
        self.arrow((middle, y), (middle, y + 0.35))
        text = "probability of the next token"
        self.axes.text(middle, y + 0.52, text, ha="center", va="center", fontsize=9)

    def finish(self, right: float) -> float:
        """Sets the limits; returns the height of all that is drawn."""
        top = self._top + 0.8
        self.axes.set_xlim(-1.0, right + _WIDTH + 1.0)
        self.axes.set_ylim(-0.7, top)
        self.axes.set_axis_off()
        return top + 1.3


def _outside(stage: Stage, row: int) -> float:
    """Returns how far from a row an arrow ends: at the frame, where boxes stand side by side."""
    return _MARGIN if stage.framed and len(stage.rows[row]) > 1 else 0


def _title(config: Config, sketch: Sketch) -> str:
    """Returns how many parameters there are, and the sizes that the letters stand for."""
    model = config.model
    sizes = {"d": model.d_model}
    if not isinstance(model, RecurrentConfig) or model.attention == "multi_head":
        sizes |= {"h": model.num_heads, "k": model.d_model // model.num_heads}
    if isinstance(model, RecurrentConfig):
        sizes |= {"g": 4 if model.cell == "lstm" else 3}
        sizes |= {"u": model.d_model // 2} if model.bidirectional else {}
    else:
        sizes |= {"f": model.d_ff}
    sizes |= {"v": config.tokenizer.vocabulary_size}
    letters = ", ".join(f"{letter}={size:,}" for letter, size in sizes.items())
    return f"{sketch.counted:,} parameters; a box counts those of one layer.  {letters}"


def _stacks(sketch: Sketch) -> tuple[tuple[str, tuple[Stage, ...]], ...]:
    return ("encoder", sketch.encoder), ("decoder", sketch.decoder)


def _in_words(name: str, stages: tuple[Stage, ...]) -> str:
    said = [
        (f"{stage.turns} layers of " if stage.framed else "")
        + ", ".join(box.title for row in stage.rows for box in row)
        for stage in stages
    ]
    return f"{name}: {'; then '.join(said)}"


def main() -> None:
    """Draws the model of a config file, as `docs/transformer.svg` is made."""
    parser = argparse.ArgumentParser(description="Draws the model of a configuration.")
    parser.add_argument("--config", type=Path, default=Path("configs/wmt_base.py"))
    parser.add_argument("--output", type=Path, default=Path("docs/transformer.svg"))
    parser.add_argument("--links", help="what the addresses of classes begin with, such as ..")
    arguments = parser.parse_args()
    picture = plot_model(load_config_file(arguments.config), links=arguments.links)
    picture.save(arguments.output)
    print(f"{arguments.output}: {picture.alt.partition(':')[0]}")


if __name__ == "__main__":
    main()
