"""Where the model gets order from: position encodings, and how alike two of them are.

Letters: p positions, d width.
"""

from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from flax_transformer.config import Config, TransformerConfig
from flax_transformer.errors import UserError
from flax_transformer.inspection.drawing import BLUE, GRAY, Picture, new_picture
from flax_transformer.models.transformer import sinusoids


def plot_positions(config: Config, params: Any = None, *, positions: int = 50) -> Picture:
    """Returns the picture of the first position encodings and of their dot products by distance.

    params: of a model that learns its positions, which are then shown beside the paper's sinusoids

    Raises `UserError` for a recurrent model, which has no positions.
    """
    model = config.model
    if not isinstance(model, TransformerConfig):
        raise UserError("model is recurrent: it reads in order, so there are no positions to show")
    if positions < 2:
        raise UserError(f"positions is {positions}, but must be at least 2 to have a distance")
    tables = {"Sinusoids": np.asarray(jax.device_get(sinusoids(positions, model.d_model)))}
    if model.learns_positions and params is not None:
        learned = params["embedding"]["positions"][:positions]
        tables["Learned"] = np.asarray(jax.device_get(learned))
    seen = max(config.batch.source_length, config.batch.target_length)
    with new_picture(10, 0.4 + 3.3 * len(tables)) as picture:
        picture.suptitle("Position encodings")
        parts = picture.subfigures(len(tables), 1, squeeze=False)[:, 0]
        for part, (name, table) in zip(parts, tables.items(), strict=True):
            _draw_table(part, name, table, seen if name == "Learned" else None)
    both = "; below, those that this model has learned" if len(tables) == 2 else ""
    picture.describe(
        f"Left: the encodings of the first {positions} positions, one per row, which are added to "
        f"the embedding of the token there (Section 3.5){both}. Right: the dot product of two "
        "encodings by the distance between them, divided by that of a position with itself. For "
        "sinusoids it depends on the distance alone, and falls as that grows: so attention can "
        "tell near from far.",
        f"Heat map of {positions} position encodings by {model.d_model} dimensions, waves from "
        "quick at the left to slow at the right, and a curve of their dot products, which falls "
        "from 1 at distance 0"
        + (", for sinusoids and for learned encodings." if len(tables) == 2 else "."),
    )
    return picture


def products_by_distance(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean, lowest and highest dot product at each distance 0 ... p - 1, each (p,).

    Divided by the mean dot product of a row of `table` (p,d) with itself.
    """
    products = table.astype(np.float64) @ table.T.astype(np.float64)
    products /= max(float(np.trace(products)) / len(table), np.finfo(np.float64).tiny)
    diagonals = [np.diagonal(products, distance) for distance in range(len(table))]
    found = [[fold(diagonal) for diagonal in diagonals] for fold in (np.mean, np.min, np.max)]
    mean, lowest, highest = map(np.array, found)
    return mean, lowest, highest


def _draw_table(part: SubFigure, name: str, table: np.ndarray, seen: int | None) -> None:
    """Draws the table and its dot products; positions from `seen` on were never trained."""
    left, right = part.subplots(1, 2, width_ratios=[1.5, 1])
    reach = float(np.abs(table).max()) or 1.0
    image = left.imshow(
        table, cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto", interpolation="none"
    )
    left.set(xlabel="dimension", ylabel="position", title=name)
    part.colorbar(image, ax=left, pad=0.02)
    mean, lowest, highest = products_by_distance(table)
    distances = np.arange(len(mean))
    right.plot(distances, mean, color=BLUE, label="mean")
    if np.ptp(highest - lowest) > 1e-3:
        right.fill_between(distances, lowest, highest, color=BLUE, alpha=0.2, label="all pairs")
        right.legend(loc="upper right")
    right.axhline(0, color=GRAY, linewidth=0.6)
    right.set(
        xlabel="distance of two positions", ylabel="dot product, relative", xlim=(0, len(mean) - 1)
    )
    if seen is not None and seen < len(table):
        _mark_untrained(left, seen)


def _mark_untrained(axes: Axes, seen: int) -> None:
    axes.axhline(seen - 0.5, color="black", linewidth=1, linestyle="--")
    axes.text(1, seen, "never trained", fontsize=8, va="top")
