"""Attention as heat maps: every layer and head side by side, or one head large.

Letters: l layers, h heads, r rows (what looks), c columns (what is looked at).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from flax_transformer.errors import UserError
from flax_transformer.inspection.chosen_head import choose_head
from flax_transformer.inspection.drawing import VERMILLION, Picture, new_picture, shorten

if TYPE_CHECKING:
    from flax_transformer.inspection.attention import Attention

Kind = Literal["encoder", "decoder", "cross"]

KINDS: tuple[Kind, ...] = ("encoder", "decoder", "cross")

_TITLES = {
    "encoder": "Encoder self-attention: where each source piece looks in the source",
    "decoder": "Decoder self-attention: where each target piece looks in those before",
    "cross": "Cross-attention: where it looks in the source as it writes each target piece",
}
_ALIGNMENT = "Alignment: where it looks in the source as it writes each target piece"
_AXES = {
    "encoder": ("looks at, in the source", "source"),
    "decoder": ("looks at, in what is written", "what is written"),
    "cross": ("looks at, in the source", "writes"),
}
_COLORS = "viridis"
_WIDEST = 22.0
_CELL = 0.16
_LEAST_MAP = 1.3
"""Inches: of all maps side by side, of a weight, and of a map of few weights."""

_GAP = 0.24
"""Inches at least that are left free between two maps, for their names."""

_SMALLEST_FONT = 4.5
_NUMBERED = 16
"""Most pieces of a side for which every weight is also written as a number."""


@dataclass(frozen=True)
class _Maps:
    """One kind of attention: its words, its weights (l,h,r,c), the pieces of rows and columns."""

    title: str
    looks_at: str
    looks: str
    weights: np.ndarray
    rows: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def short_title(self) -> str:
        return self.title.partition(":")[0]

    @property
    def pieces(self) -> str:
        return "".join({*self.rows, *self.columns})

    @property
    def alone(self) -> bool:
        return self.weights.shape[:2] == (1, 1)

    @property
    def brightest(self) -> float:
        """The weight at the end of the scale: 1, or less where no weight comes near it."""
        largest = float(self.weights.max())
        return next(end for end in (0.1, 0.2, 0.5, 1.0) if largest <= end or end == 1)

    def name(self, layer: int, head: int) -> str:
        """Returns what to call a head among the others, if there are others."""
        return "" if self.alone else f"layer {layer}, head {head}"


def plot_attention(
    attention: "Attention", kind: Kind, layer: int | None = None, head: int | None = None
) -> Picture:
    """Returns the picture of one kind of attention.

    layer, head: counted from 1; with both that head large, else all that are left, side by side

    Raises `UserError` where the model has no such attention, layer or head.
    """
    maps = _maps_of(attention, kind)
    layers, heads = maps.weights.shape[:2]
    for name, value, count in (("layer", layer, layers), ("head", head, heads)):
        if value is not None and not 1 <= value <= count:
            raise UserError(f"{name} is {value}, but a {name} of this is one from 1 to {count}")
    if maps.alone:
        layer = head = 1
    if layer is not None and head is not None:
        return _one_head(maps, layer, head)
    return _many_heads(
        maps,
        [layer] if layer else list(range(1, layers + 1)),
        [head] if head else list(range(1, heads + 1)),
    )


def _maps_of(attention: "Attention", kind: Kind) -> _Maps:
    present = [name for name in KINDS if getattr(attention, name) is not None]
    if kind not in present:
        there_is = f"there is: {', '.join(present)}" if present else "it has no attention at all"
        raise UserError(f"kind is '{kind}', which this model does not have; {there_is}")
    rows, columns = {
        "encoder": (attention.source, attention.source),
        "decoder": (attention.inputs, attention.inputs),
        "cross": (attention.target, attention.source),
    }[kind]
    recurrent = attention.encoder is None and attention.decoder is None
    title = _ALIGNMENT if recurrent else _TITLES[kind]
    return _Maps(title, *_AXES[kind], getattr(attention, kind), rows, columns)


def _one_head(maps: _Maps, layer: int, head: int) -> Picture:
    map_ = maps.weights[layer - 1, head - 1]
    longest = max(map_.shape)
    numbered = longest <= _NUMBERED
    cell = 0.36 if numbered else max(0.16, 0.36 - 0.008 * longest)
    font = 8.5 if numbered else max(6.5, cell * 72 * 0.55)
    left, below = _label_room(maps.rows, font), _label_room(maps.columns, font)
    width, height = (len(side) * cell for side in (maps.columns, maps.rows))
    name = maps.name(layer, head)
    with new_picture(max(left + width + 1.5, 5.5), below + height + 1.2, maps.pieces) as picture:
        axes = picture.subplots()
        image = _draw_map(axes, map_, maps.brightest)
        _label(axes, maps, font)
        if numbered:
            _write_numbers(axes, map_, maps.brightest)
        picture.suptitle(", ".join(filter(None, (maps.short_title, name))))
        _add_scale(picture, axes, image)
    numbers = "; the numbers are percent, those below five left out" if numbered else ""
    picture.describe(
        f"{maps.title}. {_why(maps, layer, head)}Each row sums to one{numbers}.",
        f"Heat map, {', '.join(filter(None, (maps.title, name)))}. {_strongest(maps, map_)}",
    )
    return picture


def _many_heads(maps: _Maps, layers: list[int], heads: list[int]) -> Picture:
    cell = max(_CELL, _LEAST_MAP / max(len(maps.columns), len(maps.rows)))
    cell = min(cell, _WIDEST / len(heads) / (len(maps.columns) + 2))
    gap = math.ceil(_GAP / cell)
    across, down = len(maps.columns) + gap, len(maps.rows) + gap
    font = min(cell * 72 * 0.72, 8.5)
    labelled = font >= _SMALLEST_FONT
    left, below = (_label_room(p, font) if labelled else 0.1 for p in (maps.rows, maps.columns))
    width, height = len(heads) * across * cell, len(layers) * down * cell
    chosen = choose_head(maps.weights)
    with new_picture(max(left + width + 1.2, 5.8), below + height + 0.9, maps.pieces) as picture:
        axes = picture.subplots()
        image = _draw_map(axes, tile(maps.weights, layers, heads, gap), maps.brightest)
        tops, lefts = (
            [down * i for i in range(len(layers))],
            [across * j for j in range(len(heads))],
        )
        for layer, top in zip(layers, tops, strict=True):
            for head, x in zip(heads, lefts, strict=True):
                axes.text(x - 0.5, top - 0.5 - 0.06 / cell, maps.name(layer, head), fontsize=8)
                if (layer, head) == (chosen.layer, chosen.head):
                    _frame(axes, x, top, maps)
        _label(axes, maps, font if labelled else None, lefts, tops)
        picture.suptitle(maps.short_title)
        _add_scale(picture, axes, image)
    framed = chosen.layer in layers and chosen.head in heads
    count = len(layers) * len(heads)
    picture.describe(
        f"{maps.title}. Every layer and head; each row sums to one."
        + (" The framed head is the one whose look tells most." if framed else "")
        + ("" if labelled else " The pieces have no room here: see the picture of one head."),
        f"{count} heat maps, {maps.title}; one for each layer and head, of {len(maps.rows)} rows "
        f"and {len(maps.columns)} columns.",
    )
    return picture


def tile(weights: np.ndarray, layers: Sequence[int], heads: Sequence[int], gap: int) -> np.ndarray:
    """Returns maps of `weights` (l,h,r,c), one row of them per layer, `gap` cells of NaN between.

    layers, heads: those that are wanted, counted from 1
    """
    chosen = weights[np.ix_([i - 1 for i in layers], [j - 1 for j in heads])]
    padded = np.pad(chosen, ((0, 0), (0, 0), (0, gap), (0, gap)), constant_values=np.nan)
    whole = np.moveaxis(padded, 1, 2).reshape(padded.shape[0] * padded.shape[2], -1)
    return whole[:-gap, :-gap]


def _why(maps: _Maps, layer: int, head: int) -> str:
    """Returns which head is shown, of several, and by what rule if it is the chosen one."""
    if maps.alone:
        return ""
    chosen, name = choose_head(maps.weights), f"Layer {layer}, head {head}"
    if (layer, head) != (chosen.layer, chosen.head):
        return f"{name}. "
    count = maps.weights.shape[0] * maps.weights.shape[1]
    return (
        f"{name}: of {count} heads the one whose look tells most, that is, with the largest mutual "
        f"information of row and column, {chosen.bits:.1f} bits of {chosen.most:.1f} at most. "
    )


def _strongest(maps: _Maps, map_: np.ndarray) -> str:
    """Returns in words where each row looks most; of a long sentence, the first rows."""
    said = [
        f"{row.lstrip('▁') or row} looks at {maps.columns[at].lstrip('▁') or maps.columns[at]}"
        for row, at in zip(maps.rows, map_.argmax(axis=-1), strict=True)
    ]
    return "; ".join(said[:30]) + ("; and so on." if len(said) > 30 else ".")


def _draw_map(axes: Axes, map_: np.ndarray, brightest: float) -> AxesImage:
    image = axes.imshow(
        map_, cmap=_COLORS, vmin=0, vmax=brightest, aspect="auto", interpolation="none"
    )
    axes.spines[:].set_visible(False)
    return image


def _label(axes: Axes, maps: _Maps, font: float | None, lefts=(0,), tops=(0,)) -> None:
    """Writes the pieces beside the maps whose first column is one of `lefts`, first row of `tops`;
    without a `font` there is no room for them."""
    axes.set(xlabel=maps.looks_at, ylabel=maps.looks, xticks=[], yticks=[])
    if font is None:
        return
    columns, rows = ([shorten(piece) for piece in side] for side in (maps.columns, maps.rows))
    x = [left + i for left in lefts for i in range(len(columns))]
    y = [top + i for top in tops for i in range(len(rows))]
    axes.set_xticks(x, columns * len(lefts), rotation=90, fontsize=font)
    axes.set_yticks(y, rows * len(tops), fontsize=font)
    axes.tick_params(length=2, pad=2)


def _add_scale(picture: Picture, axes: Axes, image: AxesImage) -> None:
    height = picture.get_size_inches()[1]
    picture.colorbar(image, ax=axes, shrink=min(1.0, 2.4 / height), label="weight")


def _label_room(pieces: tuple[str, ...], font: float) -> float:
    """Returns the inches that the longest label takes."""
    return max(len(shorten(piece)) for piece in pieces) * font * 0.62 / 72 + 0.1


def _write_numbers(axes: Axes, map_: np.ndarray, brightest: float) -> None:
    for (row, column), weight in np.ndenumerate(map_):
        if weight >= 0.05:
            color = "black" if weight > 0.6 * brightest else "white"
            axes.text(
                column, row, f"{100 * weight:.0f}",
                ha="center", va="center", fontsize=7.5, color=color,
            )  # fmt: skip


def _frame(axes: Axes, left: float, top: float, maps: _Maps) -> None:
    corner, size = (left - 0.5, top - 0.5), (len(maps.columns), len(maps.rows))
    look: dict[str, Any] = {
        "edgecolor": VERMILLION,
        "facecolor": "none",
        "linewidth": 2.5,
        "clip_on": False,
    }
    axes.add_patch(Rectangle(corner, *size, **look))
