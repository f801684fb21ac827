"""What the heads of a model are worth and which of them go: as text, as JSON and as a picture."""

import json
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm

from flax_transformer.inspection.drawing import Picture, new_picture
from flax_transformer.inspection.heads import HeadImportance
from flax_transformer.inspection.pruning import Pruning, Stage

_NAMES = {
    "encoder": "encoder self-attention",
    "decoder": "decoder self-attention",
    "cross": "cross-attention",
}
_CELL = 0.55  # inches
_DARKER_THAN = 0.6  # of the color scale, where numbers on it are written in white


def describe_importance(importance: HeadImportance) -> str:
    """Returns two tables with a row for each layer: what the loss gains and BLEU loses."""
    thousandths = {kind: 1000 * array for kind, array in importance.loss.items()}
    return "\n".join(
        [
            "Rise of the loss without each head, in thousandths of a nat per target token:",
            *_table(thousandths, "{:.1f}"),
            "Fall of BLEU without each head:",
            *_table(importance.bleu, "{:.2f}"),
        ]
    )


def describe_stages(pruning: Pruning) -> str:
    """Returns a table with a row for each number of heads; an asterisk marks the chosen one."""
    lines = [f"  {'heads':>8}{'encoder':>9}{'decoder':>9}{'cross':>7}{'loss':>9}{'BLEU':>8}"]
    for stage in pruning.stages:
        mark = "*" if stage is pruning.chosen else " "
        encoder, decoder, cross = (np.count_nonzero(stage.masks[kind]) for kind in _NAMES)
        lines.append(
            f"{mark} {stage.left:8}{encoder:9}{decoder:9}{cross:7}"
            f"{stage.loss:9.4f}{stage.bleu:8.2f}"
        )
    return "\n".join(lines)


def as_json(importance: HeadImportance, pruning: Pruning, origin: dict[str, Any]) -> str:
    """Returns all that was measured; `origin` says of which model, and on what.

    Layers and heads are numbered from 0 there.
    """
    record = origin | {
        "importance": {
            name: {kind: array.tolist() for kind, array in getattr(importance, name).items()}
            for name in ("loss", "bleu", "sensitivity")
        },
        "stages": [
            {"heads": stage.left, "loss": stage.loss, "bleu": stage.bleu}
            for stage in pruning.stages
        ],
        "kept": {
            kind: [np.flatnonzero(layer).tolist() for layer in mask]
            for kind, mask in pruning.chosen.masks.items()
        },
    }
    return json.dumps(record, indent=1) + "\n"


def plot_importance(importance: HeadImportance, chosen: Stage | None = None) -> Picture:
    """Returns a picture of how much the loss rises without each head.

    chosen: crosses out the heads that this model does not have
    """
    kinds = {kind: array for kind, array in importance.loss.items()}
    most = max(1e-9, *(array.max() for array in kinds.values()))
    layers, heads = (max(array.shape[axis] for array in kinds.values()) for axis in (0, 1))
    size = (1.4 + len(kinds) * (heads * _CELL + 0.6), 1.5 + layers * _CELL)
    norm = PowerNorm(0.5, vmin=0, vmax=most, clip=True)
    with new_picture(max(size[0], 6.5), size[1]) as picture:
        panels = picture.subplots(1, len(kinds), squeeze=False)[0]
        for axes, (kind, array) in zip(panels, kinds.items(), strict=True):
            image = axes.imshow(array, cmap="viridis", norm=norm)
            axes.set_title(_NAMES[kind].capitalize(), fontsize=9)
            axes.set_xticks(range(array.shape[1]), range(1, array.shape[1] + 1))
            axes.set_yticks(range(array.shape[0]), range(1, array.shape[0] + 1))
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_xlabel("head")
            for (layer, head), rise in np.ndenumerate(array):
                gone = chosen is not None and not chosen.masks[kind][layer, head]
                color = "white" if norm(rise) < _DARKER_THAN else "black"
                axes.text(head, layer, f"{1000 * rise:.0f}", ha="center", va="center", color=color)
                if gone:
                    axes.plot(
                        [head - 0.4, head + 0.4], [layer + 0.4, layer - 0.4],
                        color=color, linewidth=1.0, alpha=0.8,
                    )  # fmt: skip
        panels[0].set_ylabel("layer")
        picture.suptitle("What each head is worth")
        label = "rise of the loss without it\n(nats per target token)"
        ticks = [most * share**2 for share in (0, 1 / 3, 2 / 3, 1)]  # as far from each other
        picture.colorbar(image, ax=panels, label=label, shrink=0.9, ticks=ticks, format="%.2g")
    crossed = " Those crossed out were removed." if chosen is not None else ""
    picture.describe(
        "By how much the validation loss rises without each head, in thousandths of a nat per "
        f"target token; the color is also in nats.{crossed}",
        _in_words(importance),
    )
    return picture


def _in_words(importance: HeadImportance) -> str:
    said = []
    for kind, array in importance.loss.items():
        layer, head = np.unravel_index(array.argmax(), array.shape)
        said.append(
            f"{_NAMES[kind]} up to {1000 * array.max():.0f} (layer {layer + 1}, head {head + 1}), "
            f"in the median {1000 * np.median(array):.0f}"
        )
    return f"Heat maps of the rise of the loss without each head, in 1/1000 nat: {'; '.join(said)}."


def _table(arrays: dict[str, np.ndarray], number: str) -> list[str]:
    most = max(array.shape[1] for array in arrays.values())
    labels = "".join(f"{f'head {head}':>9}" for head in range(1, most + 1))
    rows = [
        f"  {f'{_NAMES[kind]}, layer {layer}':32}"
        + "".join(f"{number.format(value):>9}" for value in values)
        for kind, array in arrays.items()
        for layer, values in enumerate(array, 1)
    ]
    return [f"  {'':32}{labels}", *rows]
