"""Learning curves of one run or several, from their metrics.jsonl."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from flax_transformer.errors import UserError, require
from flax_transformer.inspection.drawing import COLORS, GRAY, Picture, new_picture, plain
from flax_transformer.training.metrics import read_metrics
from flax_transformer.workdir import METRICS_FILE


class _Panel(NamedTuple):
    name: str
    title: str
    logarithmic: bool = False
    most: float | None = None


_PANELS = (
    _Panel("loss", "loss, nats per token"),
    _Panel("perplexity", "perplexity", logarithmic=True),
    _Panel("bleu", "BLEU of validation, greedy", most=102),
    _Panel("accuracy", "accuracy: share of tokens", most=1.02),
    _Panel("learning_rate", "learning rate"),
    _Panel("gradient_norm", "gradient's norm, mean"),
)
_DASHES = ("-", "--", ":", "-.")


def plot_curves(*workdirs: str | Path) -> Picture:
    """Returns the learning curves of the runs in `workdirs`, together in one picture.

    Raises `UserError` where a run has measured nothing yet, or its metrics cannot be read.
    """
    require(len(workdirs) > 0, "no work directory is given: name at least one run")
    folders = [Path(each) for each in workdirs]
    runs = dict(zip(run_names(folders), map(_read, folders), strict=True))
    with new_picture(11, 6.2, "".join(runs)) as picture:
        picture.suptitle(f"Learning curves: {', '.join(runs) if len(runs) < 4 else len(runs)}")
        panels = picture.subplots(2, 3, sharex=True)
        for axes, panel in zip(panels.flat, _PANELS, strict=True):
            _draw_panel(axes, panel, list(runs.values()))
        panels[0, 0].set_xlim(
            0, 1.04 * max(line["step"] for lines in runs.values() for line in lines)
        )
        for axes in panels[-1]:
            axes.set_xlabel("step")
        picture.legend(handles=_legend(list(runs)), loc="outside lower center", ncols=4)
    last = {name: _last(lines) for name, lines in runs.items()}
    picture.describe(
        "What the run has measured, step by step: lines are means over training steps, dots are "
        "validations. The loss counts label smoothing, perplexity does not.",
        "Six curves over training steps: loss, perplexity, BLEU, accuracy, learning rate and norm "
        "of the gradient. "
        + " ".join(f"{name} ends with {words}." for name, words in last.items()),
    )
    return picture


def run_names(folders: Sequence[Path]) -> list[str]:
    """Returns the shortest names by which the folders differ: the last part, or the whole path."""
    resolved = [folder.resolve() for folder in folders]
    short = [plain(folder.name, 40) for folder in resolved]
    if len(set(short)) == len(short):
        return short
    whole = [plain(str(folder), 200) for folder in folders]
    require(len(set(whole)) == len(whole), f"{whole[0]}: the same work directory is named twice")
    return whole


def _read(workdir: Path) -> list[dict[str, Any]]:
    lines = read_metrics(workdir)
    if not any(_points(lines, kind, "loss")[0] for kind in ("train", "validation")):
        raise UserError(
            f"{workdir / METRICS_FILE} has no step in it: is this the work directory of a run that "
            "has trained for training.log_every steps?"
        )
    return lines


def _points(lines: Sequence[dict[str, Any]], kind: str, name: str) -> tuple[list[int], list[float]]:
    """Returns steps and values; a value that is no number leaves a gap."""
    some = [line for line in lines if line["kind"] == kind and name in line]
    values = [
        value if isinstance(value := line[name], int | float) and math.isfinite(value) else math.nan
        for line in some
    ]
    return [line["step"] for line in some], values


def _last(lines: Sequence[dict[str, Any]]) -> str:
    found = {
        "loss": _points(lines, "validation", "loss")[1] or _points(lines, "train", "loss")[1],
        "BLEU": _points(lines, "validation", "bleu")[1],
    }
    return ", ".join(f"{name} {values[-1]:.4g}" for name, values in found.items() if values)


def _draw_panel(axes: Axes, panel: _Panel, runs: Sequence[list[dict[str, Any]]]) -> None:
    drawn = False
    for number, lines in enumerate(runs):
        color, dashes = _look(number)
        steps, values = _points(lines, "train", panel.name)
        axes.plot(steps, values, color=color, linestyle=dashes, linewidth=1.2, alpha=0.8)
        checked, found = _points(lines, "validation", panel.name)
        if checked:  # an empty line would take its room at the corner
            dots = COLORS[1] if len(runs) == 1 else color
            look: dict[str, Any] = {"markersize": 4.5, "linewidth": 1.2, "clip_on": False}
            axes.plot(checked, found, "o-", color=dots, **look)
        drawn |= bool(steps or checked)
    if panel.logarithmic and drawn:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}"))
    elif panel.most is not None:
        axes.set_ylim(0, panel.most)
    if not drawn:
        axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", color=GRAY)
    axes.set_title(panel.title)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def _look(number: int) -> tuple[str, Any]:
    """Returns the colour and the dashes of a run; after all colours, the dashes change."""
    return COLORS[number % len(COLORS)], _DASHES[number // len(COLORS) % len(_DASHES)]


def _legend(names: Sequence[str]) -> list[Line2D]:
    if len(names) == 1:
        return [
            Line2D([], [], color=COLORS[0], label="training"),
            Line2D([], [], color=COLORS[1], marker="o", markersize=4.5, label="validation"),
        ]
    looks = [(name, *_look(number)) for number, name in enumerate(names)]
    return [Line2D([], [], color=c, linestyle=dashes, label=name) for name, c, dashes in looks]
