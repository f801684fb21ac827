"""Attention as heat maps: every layer and head side by side, or one head large.

Letters: l layers, h heads, r rows (what looks), c columns (what is looked at).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from flax_transformer.errors import UserError
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
_SMALLEST_FONT = 4.5
_NUMBERED = 16
"""Most pieces of a side for which every weight is also written as a number."""


@dataclass(frozen=True)
class ChosenHead:
    """The head of an attention that shows most, counted from 1, and by how much it does.

    bits:  how much knowing which row looks tells of where it looks: the mutual information of row
           and column, which is 0 for a head that looks to the same place always, or everywhere
    most:  the most that it could be with as many rows and columns
    """

    layer: int
    head: int
    bits: float
    most: float


def choose_head(weights: np.ndarray) -> ChosenHead:
    """Returns the head of `weights` (l,h,r,c) whose rows differ most in where they look."""
    logs = np.log2(np.maximum(weights, np.finfo(np.float32).tiny))
    within = -(weights * logs).sum(axis=-1).mean(axis=-1)  # lh
    mean = weights.mean(axis=-2)  # lhc
    between = -(mean * np.log2(np.maximum(mean, np.finfo(np.float32).tiny))).sum(axis=-1)
    bits = between - within
    layer, head = np.unravel_index(int(bits.argmax()), bits.shape)
    most = float(np.log2(min(weights.shape[-2:])))
    return ChosenHead(int(layer) + 1, int(head) + 1, float(bits.max()), most)


def plot_attention(
    attention: "Attention", kind: Kind, layer: int | None = None, head: int | None = None
) -> Picture:
    """Returns the picture of one kind of attention.

    layer, head: counted from 1; both for one head large, one or none for all that are left

    Raises `UserError` where the model has no such attention, layer or head.
    """
    weights = weights_of(attention, kind)
    layers, heads = weights.shape[:2]
    for name, value, count in (("layer", layer, layers), ("head", head, heads)):
        if value is not None and not 1 <= value <= count:
            raise UserError(f"{name} is {value}, but a {name} of this is one from 1 to {count}")
    rows, columns = pieces_of(attention, kind)
    chosen = choose_head(weights)
    if layers * heads == 1:
        layer = head = 1
    if layer is not None and head is not None:
        return _one_head(attention, kind, weights, rows, columns, layer, head, chosen)
    shown = [
        (i, j)
        for i in range(1, layers + 1)
        for j in range(1, heads + 1)
        if layer in (None, i) and head in (None, j)
    ]
    return _many_heads(attention, kind, weights, rows, columns, shown, chosen)


def weights_of(attention: "Attention", kind: Kind) -> np.ndarray:
    """Returns the weights (l,h,r,c) of that kind; raises `UserError` where there are none."""
    present = [name for name in KINDS if getattr(attention, name) is not None]
    if kind not in present:
        there_is = f"there is: {', '.join(present)}" if present else "it has no attention at all"
        raise UserError(f"kind is '{kind}', which this model does not have; {there_is}")
    return getattr(attention, kind)


def pieces_of(attention: "Attention", kind: Kind) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the pieces on the rows and on the columns."""
    return {
        "encoder": (attention.source, attention.source),
        "decoder": (attention.inputs, attention.inputs),
        "cross": (attention.target, attention.source),
    }[kind]


def _one_head(attention, kind, weights, rows, columns, layer, head, chosen) -> Picture:
    map_ = weights[layer - 1, head - 1]
    numbered = max(map_.shape) <= _NUMBERED
    cell = 0.36 if numbered else max(0.17, 0.36 - 0.008 * max(map_.shape))
    font = 8.5 if numbered else max(6.0, cell * 36)
    left, below = _label_room(rows, font), _label_room(columns, font)
    size = (left + 1.5 + len(columns) * cell, below + 1.2 + len(rows) * cell)
    with new_picture(max(size[0], 5.5), size[1], "".join({*rows, *columns})) as picture:
        axes = picture.subplots()
        image = _draw_map(axes, map_)
        _label(axes, rows, columns, font)
        axes.set_xlabel(_AXES[kind][0])
        axes.set_ylabel(_AXES[kind][1])
        if numbered:
            _write_numbers(axes, map_)
        else:
            axes.grid(which="minor", color="white", linewidth=0.15, alpha=0.5)
        name = _name(weights, layer, head)
        picture.suptitle(f"{_short_title(attention, kind)}{name and ', ' + name}")
        picture.colorbar(image, ax=axes, shrink=min(1.0, 2.4 / size[1]), label="weight")
    picture.describe(
        f"{_title(attention, kind)}. {_rule(weights, layer, head, chosen)}"
        "Each row sums to one"
        + ("; the numbers are percent, those below five left out." if numbered else "."),
        f"Heat map, {_title(attention, kind)}. {name}. " + _strongest(map_, rows, columns),
    )
    return picture


def _many_heads(attention, kind, weights, rows, columns, shown, chosen) -> Picture:
    layers, heads = (sorted({pair[axis] for pair in shown}) for axis in (0, 1))
    widest = max(_WIDEST / len(heads), 1.0)
    cell = min(0.15, widest / len(columns))
    font = cell * 72 * 0.72
    labelled = font >= _SMALLEST_FONT
    left, below = (_label_room(p, font) if labelled else 0.1 for p in (rows, columns))
    width = max(cell * len(columns), 1.1)
    height = max(cell * len(rows), 1.1)
    size = (
        left + 1.1 + len(heads) * (width + 0.12),
        below + 0.9 + len(layers) * (height + 0.3),
    )
    with new_picture(max(size[0], 5.8), size[1], "".join({*rows, *columns})) as picture:
        grid = picture.subplots(len(layers), len(heads), sharex=True, sharey=True, squeeze=False)
        image = None
        for axes, (layer, head) in zip(grid.flat, shown, strict=True):
            image = _draw_map(axes, weights[layer - 1, head - 1])
            _label(axes, rows, columns, font, labelled)
            axes.set_title(f"layer {layer}, head {head}", fontsize=8, pad=3)
            if (layer, head) == (chosen.layer, chosen.head):
                _frame(axes)
        for axes in grid[:, 0]:
            axes.set_ylabel(_AXES[kind][1], fontsize=8)
        picture.supxlabel(_AXES[kind][0], fontsize=8)
        picture.suptitle(_short_title(attention, kind))
        assert image is not None
        picture.colorbar(image, ax=grid, shrink=min(1.0, 2.4 / size[1]), label="weight")
    tokens = "" if labelled else " The pieces have no room here: see the picture of one head."
    framed = (chosen.layer, chosen.head) in shown and len(shown) > 1
    picture.describe(
        f"{_title(attention, kind)}, in every layer and head. Each row sums to one."
        + (" The framed head is the one whose look tells most." if framed else "")
        + tokens,
        f"{len(shown)} heat maps, {_title(attention, kind)}, one for each layer and head, of "
        f"{len(rows)} rows and {len(columns)} columns.",
    )
    return picture


def _title(attention: "Attention", kind: Kind) -> str:
    recurrent = attention.encoder is None and attention.decoder is None
    return _ALIGNMENT if recurrent else _TITLES[kind]


def _short_title(attention: "Attention", kind: Kind) -> str:
    return _title(attention, kind).partition(":")[0]


def _name(weights: np.ndarray, layer: int, head: int) -> str:
    """Returns what to call a head among the others, if there are others."""
    return f"layer {layer}, head {head}" if weights.shape[:2] != (1, 1) else ""


def _rule(weights: np.ndarray, layer: int, head: int, chosen: ChosenHead) -> str:
    """Returns why this head is shown, if it is the chosen one of several."""
    if weights.shape[:2] == (1, 1):
        return ""
    name = f"Layer {layer}, head {head}"
    if (layer, head) != (chosen.layer, chosen.head):
        return f"{name}. "
    return (
        f"{name}: of {weights.shape[0] * weights.shape[1]} heads the one whose look tells most, "
        "that is, of which row and column have the largest mutual information "
        f"({chosen.bits:.1f} bits of {chosen.most:.1f} at most). "
    )


def _strongest(map_: np.ndarray, rows: tuple[str, ...], columns: tuple[str, ...]) -> str:
    """Returns in words where each row looks most; of a long sentence, the first rows."""
    said = [
        f"{row.lstrip('▁') or row} looks at {columns[at].lstrip('▁') or columns[at]}"
        for row, at in zip(rows, map_.argmax(axis=-1), strict=True)
    ]
    return "; ".join(said[:30]) + ("; and so on." if len(said) > 30 else ".")


def _draw_map(axes: Axes, map_: np.ndarray) -> AxesImage:
    image = axes.imshow(map_, cmap=_COLORS, vmin=0, vmax=1, aspect="auto", interpolation="none")
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks(np.arange(1, map_.shape[1]) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, map_.shape[0]) - 0.5, minor=True)
    axes.tick_params(which="minor", length=0)
    return image


def _label(axes: Axes, rows, columns, font: float, labelled: bool = True) -> None:
    if not labelled:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    axes.set_xticks(range(len(columns)), [shorten(p) for p in columns], rotation=90, fontsize=font)
    axes.set_yticks(range(len(rows)), [shorten(p) for p in rows], fontsize=font)
    axes.tick_params(which="major", length=2, pad=2)


def _label_room(pieces: tuple[str, ...], font: float) -> float:
    """Returns the inches that the longest label takes."""
    return max(len(shorten(piece)) for piece in pieces) * font * 0.62 / 72 + 0.1


def _write_numbers(axes: Axes, map_: np.ndarray) -> None:
    for (row, column), weight in np.ndenumerate(map_):
        if weight >= 0.05:
            color = "black" if weight > 0.6 else "white"
            axes.text(
                column, row, f"{100 * weight:.0f}",
                ha="center", va="center", fontsize=7.5, color=color,
            )  # fmt: skip


def _frame(axes: Axes) -> None:
    for side in axes.spines.values():
        side.set(visible=True, color=VERMILLION, linewidth=2.5)
