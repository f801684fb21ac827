"""A comparison's figures as pictures beside its record."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from flax_transformer.files.whole_file import whole_file


def draw(figures: dict[str, Any], record: Path) -> list[Path]:
    """Draws learning curves, BLEU by length and alignments, as PNG; returns where they are."""
    record.parent.mkdir(parents=True, exist_ok=True)
    drawn = {
        "learning_curves": _learning_curves(figures),
        "bleu_by_length": _bleu_by_length(figures),
    }
    if figures["alignments"]:
        drawn["alignments"] = _alignments(figures["alignments"])
    paths = []
    for name, figure in drawn.items():
        path = record.with_name(f"{name}.png")
        with whole_file(path) as file:
            figure.savefig(file, dpi=110, format="png")
        plt.close(figure)
        paths.append(path)
    return paths


def _learning_curves(figures: dict[str, Any]) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for system, found in figures["systems"].items():
        seconds, losses = zip(*((x["seconds"], x["loss"]) for x in found["curve"]), strict=True)
        axes.plot(seconds, losses, "o-", markersize=3, label=system)
    axes.axhline(figures["target_loss"], color="0.6", linewidth=0.8, linestyle="--")
    axes.set(
        xlabel="seconds of training steps",
        ylabel="validation loss (label-smoothed), nats a token",
        xlim=(0, None),
    )
    axes.legend()
    return figure


def _bleu_by_length(figures: dict[str, Any]) -> plt.Figure:
    systems = figures["systems"]
    names = list(next(iter(systems.values()))["test_sets"])
    figure, row = plt.subplots(
        1, len(names), figsize=(1.5 + 5 * len(names), 4.5), layout="constrained", squeeze=False
    )
    for axes, name in zip(row[0], names, strict=True):
        bins = next(iter(systems.values()))["test_sets"][name]["by_source_words"]
        enough = [place for place, one in enumerate(bins) if not one["too_few"]]
        few = [place for place, one in enumerate(bins) if one["too_few"] and one["sentences"]]
        for system, found in systems.items():
            bleu = [one["bleu"] for one in found["test_sets"][name]["by_source_words"]]
            line = axes.plot(enough, [bleu[place] for place in enough], "o-", label=system)[0]
            # No line leads to a score of a few sentences: it says next to nothing.
            axes.plot(few, [bleu[place] for place in few], "o", color=line.get_color(), mfc="none")
        axes.set_xticks(range(len(bins)), [f"{x['words']}\n({x['sentences']:,})" for x in bins])
        axes.set(
            xlabel="words of the source (sentences; hollow: too few)",
            ylabel="BLEU",
            title=name,
            ylim=(0, None),
        )
    row[0, -1].legend()
    return figure


def _alignments(alignments: dict[str, Any]) -> plt.Figure:
    """One square for each system: a row for each piece that is written, summing to one."""
    columns = min(3, len(alignments))
    rows = -(-len(alignments) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.5 * columns, 4.5 * rows), layout="constrained", squeeze=False
    )
    for axes in grid.flat[len(alignments) :]:
        axes.set_axis_off()
    image = None
    for axes, (system, found) in zip(grid.flat, alignments.items(), strict=False):
        image = axes.imshow(found["weights"], cmap="Greys", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(found["source"])), found["source"], rotation=90, fontsize=7)
        axes.set_yticks(range(len(found["target"])), found["target"], fontsize=7)
        axes.set_title(system)
    figure.colorbar(image, ax=grid, shrink=0.5, label="attention")
    return figure
