"""Draws a Transformer as figure 1 of the paper does, from the parameters that it really has.

    python docs/draw_model.py --config configs/wmt_base.py --output docs/transformer.svg

Every box is a module: its parameters with their shapes in the letters of the legend, and how many
numbers they hold in one layer. Needs matplotlib.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from flax_transformer.config import Config, MeshConfig, TransformerConfig
from flax_transformer.config.shipped import load_config_file
from flax_transformer.models.initialization import abstract_params, parameter_axes
from flax_transformer.parallel.sharding import build_mesh

COLORS = {
    "attention": "#fde3c8",
    "feed-forward": "#cfe8f7",
    "norm": "#f3f4c4",
    "embedding": "#fbdede",
}
WIDTH, HEIGHT, GAP = 5.6, 0.78, 0.3
ORDER = ("query", "key", "value", "output", "w1", "b1", "w2", "b2", "scale", "bias", "table")


def modules(config: Config) -> dict[str, tuple[list[str], int]]:
    """By the path of a module: its parameters as text, and the numbers in one layer of them."""
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(config, mesh))
    axes = jax.tree.leaves(parameter_axes(config), is_leaf=lambda x: isinstance(x, tuple))
    found: dict[str, tuple[list[str], int]] = {}
    for (keys, array), names in zip(leaves, axes, strict=True):
        *path, name = (key.key for key in keys)
        sizes = {letter: n for letter, n in zip(names, array.shape, strict=True) if letter != "l"}
        lines, count = found.get(".".join(path), ([], 0))
        text = f"{name} ({','.join(sizes)})"
        found[".".join(path)] = [*lines, text], count + int(np.prod(list(sizes.values())))
    return found


def order_of(stack: str, paths: list[str], norm: str) -> list[str]:
    """The modules of a stack from the bottom up, as the layer calls them."""
    sublayers = [
        path
        for word in ("self_attention", "attention", "cross_attention", "feed_forward")
        for path in paths
        if path == f"{stack}.{word}"
    ]
    order = []
    for path in sublayers:
        residual = f"{path.removesuffix('_attention')}_residual.norm"
        if residual not in paths:
            residual = f"{path}_residual.norm"
        order += [residual, path] if norm == "pre" else [path, residual]
    return order


def title_of(path: str) -> str:
    """What a box is called, such as "Masked self-attention"."""
    name = path.split(".", 1)[1]
    known = {
        "self_attention": "Masked multi-head self-attention",
        "attention": "Multi-head self-attention",
        "cross_attention": "Multi-head attention to the encoder",
        "feed_forward": "Feed-forward",
    }
    return known.get(name, "Add & norm")


def color_of(title: str) -> str:
    return next((color for word, color in COLORS.items() if word in title.lower()), "white")


def _rank(text: str) -> int:
    """Where a parameter stands among those of its box."""
    name = text.split(" ")[0]
    return ORDER.index(name) if name in ORDER else len(ORDER)


class Drawing:
    """Boxes and arrows in the units of a box's width and height."""

    def __init__(self, axes: Axes):
        self.axes = axes
        self.numbers: list[int] = []

    def box(self, x: float, y: float, title: str, lines: list[str], count: int | None) -> None:
        patch = FancyBboxPatch(
            (x, y), WIDTH, HEIGHT, boxstyle="round,pad=0.02,rounding_size=0.12",
            facecolor=color_of(title), edgecolor="#333333", linewidth=1.0,
        )  # fmt: skip
        self.axes.add_patch(patch)
        self.axes.text(x + 0.15, y + HEIGHT - 0.26, title, fontsize=9.5, weight="bold")
        if count is not None:
            self.numbers.append(count)
            where = (x + WIDTH - 0.12, y + 0.16)
            self.axes.text(*where, f"{count:,}", fontsize=8, ha="right", color="#222222")
        parameters = ", ".join(sorted(lines, key=_rank))
        self.axes.text(x + 0.15, y + 0.16, parameters, fontsize=7.2, color="#444444")

    def arrow(self, start: tuple[float, float], end: tuple[float, float], label: str = "") -> None:
        style = {"arrowstyle": "-|>", "color": "#333333", "linewidth": 1.0}
        self.axes.annotate("", xy=end, xytext=start, arrowprops=style)
        if label:
            middle = ((start[0] + end[0]) / 2 + 0.1, (start[1] + end[1]) / 2 - 0.06)
            self.axes.text(*middle, label, fontsize=7.5, color="#333333")

    def stack(
        self, x: float, y: float, boxes: list[tuple[str, list[str], int]], turns: int
    ) -> float:
        """Draws the boxes of one layer upwards from `y` in a frame; returns the top."""
        top = y + len(boxes) * (HEIGHT + GAP) - GAP
        frame = FancyBboxPatch(
            (x - 0.25, y - 0.22), WIDTH + 0.5, top - y + 0.44,
            boxstyle="round,pad=0.02,rounding_size=0.2", facecolor="#f7f7f7", edgecolor="#999999",
        )  # fmt: skip
        self.axes.add_patch(frame)
        side = x - 0.4 if x == 0 else x + WIDTH + 0.4
        self.axes.text(side, (y + top) / 2, f"{turns} ×", fontsize=12, ha="center", va="center")
        for i, box in enumerate(boxes):
            self.box(x, y + i * (HEIGHT + GAP), *box)
            if i:
                below = y + i * (HEIGHT + GAP) - GAP
                self.arrow((x + WIDTH / 2, below + 0.02), (x + WIDTH / 2, below + GAP - 0.02))
        return top


def boxes_of(
    stack: str, found: dict[str, tuple[list[str], int]], norm: str
) -> Iterator[tuple[str, list[str], int]]:
    for path in order_of(stack, list(found), norm):
        yield title_of(path), *found[path]


def draw(config: Config, output: Path) -> int:
    """Writes the picture; returns the parameters that its boxes stand for."""
    model = config.model
    assert isinstance(model, TransformerConfig), "only a Transformer is drawn"
    found = modules(config)
    figure, axes = plt.subplots(figsize=(12.6, 8.2))
    drawing = Drawing(axes)
    right = WIDTH + 1.7
    lines, count = found["embedding"]
    total = count
    tops = {}
    layers = {"encoder": model.num_encoder_layers, "decoder": model.num_decoder_layers}
    for x, stack in ((0.0, "encoder"), (right, "decoder")):
        boxes = list(boxes_of(stack, found, model.norm))
        total += layers[stack] * sum(box[2] for box in boxes)
        shared = lines if stack == "encoder" else ["the same table"]
        drawing.box(x, 0, "Token embedding + positions", shared, count if x == 0 else None)
        letter = "s" if stack == "encoder" else "t"
        drawing.arrow((x + WIDTH / 2, HEIGHT), (x + WIDTH / 2, 1.62), f"(b,{letter},d)")
        side = "source ids (b,s)" if x == 0 else "target ids (b,t), shifted right"
        axes.text(x + WIDTH / 2, -0.45, side, ha="center", fontsize=9)
        tops[stack] = drawing.stack(x, 1.85, boxes, layers[stack])
    total += sum(found[path][1] for path in found if path.endswith("coder_norm"))
    _connect(drawing, tops, right, found, model)
    axes.set_title(_caption(config, total), fontsize=10.5, loc="left")
    axes.set_xlim(-0.8, right + WIDTH + 0.9)
    axes.set_ylim(-0.7, tops["decoder"] + 2.6)
    axes.set_axis_off()
    metadata = {"Date": None} if output.suffix == ".svg" else None  # the same file each time
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "transformer"}):
        figure.savefig(output, bbox_inches="tight", metadata=metadata)
    plt.close(figure)
    return total


def _connect(drawing: Drawing, tops: dict[str, float], right: float, found, model) -> None:
    """From the encoder to the decoder, and from there to the probabilities."""
    order = order_of("decoder", list(found), model.norm)
    cross = 1.85 + order.index("decoder.cross_attention") * (HEIGHT + GAP) + HEIGHT / 2
    middle, height = WIDTH + 0.85, tops["encoder"] + 0.6
    path = [
        (WIDTH / 2, tops["encoder"] + 0.22),
        (WIDTH / 2, height),
        (middle, height),
        (middle, cross),
    ]
    drawing.axes.plot(
        *zip(*path, strict=True),
        color="#333333",
        linewidth=1.0,
    )
    drawing.axes.text(WIDTH / 2 + 0.1, height + 0.08, "memory (b,s,d)", fontsize=7.5)
    drawing.arrow((middle, cross), (right, cross))
    x, top = right + WIDTH / 2, tops["decoder"] + 0.22
    drawing.arrow((x, top), (x, top + 0.5), "(b,t,d)")
    drawing.box(
        right,
        top + 0.5,
        "Softmax over the tied embedding",
        ["logits (b,t,v) = features · tableᵀ"],
        None,
    )
    drawing.arrow((x, top + 0.5 + HEIGHT), (x, top + 0.9 + HEIGHT))
    drawing.axes.text(
        x, top + 1.0 + HEIGHT, "probability of the next token", ha="center", fontsize=9
    )


def _caption(config: Config, total: int) -> str:
    model = config.model
    assert isinstance(model, TransformerConfig)
    return (
        f"{total:,} parameters; a box counts those of one layer.  "
        f"d={model.d_model}, h={model.num_heads}, k={model.d_model // model.num_heads}, "
        f"f={model.d_ff}, v={config.tokenizer.vocabulary_size:,}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__ or "")[0])
    parser.add_argument("--config", type=Path, default=Path("configs/wmt_base.py"))
    parser.add_argument("--output", type=Path, default=Path("docs/transformer.svg"))
    arguments = parser.parse_args()
    total = draw(load_config_file(arguments.config), arguments.output)
    print(f"{arguments.output}: {total:,} parameters")


if __name__ == "__main__":
    main()
