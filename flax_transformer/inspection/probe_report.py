"""What attention and hidden states know, against the truth: as text, as JSON and as a picture."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from flax_transformer.inspection.alignment_error import AlignmentScore
from flax_transformer.inspection.drawing import COLORS, GRAY, Picture, new_picture
from flax_transformer.inspection.probe_labels import PROPERTIES, Place
from flax_transformer.inspection.probing import ProbeScore

_PLACES: dict[Place, str] = {
    "encoder": "encoder",
    "decoder reads": "decoder, at the word just read",
    "decoder writes": "decoder, about to write the word",
}
_MARKERS = "osD^v"


def describe_alignment(scores: Sequence[AlignmentScore], diagonal: AlignmentScore) -> str:
    """Returns a table with a row for each head and each mean of heads, and what to compare with."""
    lines = [f"  {'':28}{'content words that look':>24}{'alignment':>12}"]
    lines.append(f"  {'':28}{'at a true word':>24}{'error rate':>12}")

    def row(name: str, score: AlignmentScore) -> str:
        return f"  {name:28}{score.content_words:>24.1%}{score.error_rate:>12.3f}"

    for score in scores:
        if score.moment == "written":
            lines.append(row(_name(score), score))
    lines.append(row("the same place, relatively", diagonal))
    later = max(
        (score for score in scores if score.moment == "read"),
        key=lambda score: score.content_words,
    )
    lines.append(f"one step later, when the word is the decoder's input, at best ({_name(later)}):")
    return "\n".join([*lines, row("", later)])


def _name(score: AlignmentScore) -> str:
    return f"layer {score.layer}, {'mean' if score.head is None else f'head {score.head}'}"


def describe_probes(scores: Sequence[ProbeScore]) -> str:
    """Returns a table for each place: accuracy and selectivity, layer by layer."""
    lines = []
    for place, title in _PLACES.items():
        own = [score for score in scores if score.place == place]
        lines += ["", f"{title:34}" + "".join(f"{task:>15}" for task in PROPERTIES)]
        for layer in range(1 + max(score.layer for score in own)):
            found = {score.task: score for score in own if score.layer == layer}
            cells = [
                f"{found[task].accuracy:9.3f}{found[task].selectivity:+6.2f}" for task in PROPERTIES
            ]
            lines.append(f"  {_layer(layer):32}" + "".join(cells))
        frequent = {score.task: score.most_frequent for score in own}
        cells = [f"{frequent[task]:9.3f}{'':6}" for task in PROPERTIES]
        lines.append((f"  {'the most frequent':32}" + "".join(cells)).rstrip())
    return "\n".join(lines)


def _layer(layer: int) -> str:
    return f"layer {layer}" if layer else "embedding"


def as_json(
    alignment: Sequence[AlignmentScore],
    diagonal: AlignmentScore,
    probes: Sequence[ProbeScore],
    origin: dict[str, Any],
) -> str:
    """Returns all that was measured; `origin` says of which model, and on what."""
    record = origin | {
        "alignment": [dataclasses.asdict(score) for score in alignment],
        "same_place": {
            "content_words": diagonal.content_words,
            "error_rate": diagonal.error_rate,
        },
        "probes": [
            dataclasses.asdict(score) | {"selectivity": score.selectivity} for score in probes
        ],
    }
    return json.dumps(record, indent=2) + "\n"


def plot_probes(scores: Sequence[ProbeScore]) -> Picture:
    """Returns the accuracy of every probe over the layers, that of its control dashed."""
    with new_picture(11, 4) as picture:
        picture.suptitle("What a linear probe finds in each layer")
        panels = picture.subplots(1, len(_PLACES), sharey=True)
        for axes, (place, title) in zip(panels, _PLACES.items(), strict=True):
            _draw(axes, title, [score for score in scores if score.place == place])
        panels[0].set_ylabel("accuracy")
        handles = [
            Line2D([], [], color=color, marker=marker, label=task)
            for task, color, marker in zip(PROPERTIES, COLORS, _MARKERS, strict=False)
        ]
        control = Line2D([], [], color=GRAY, linestyle="--", label="its control task")
        picture.legend(handles=[*handles, control], loc="outside lower center", ncols=6)
    picture.describe(
        "Accuracy of a linear probe for each property of a word, on sentences that it has not "
        "learnt from. Where its control task, of random labels for words, is learnt as well "
        "(dashed), it shows the probe's memory and not the layer's knowledge.",
        "Accuracies of probes over layers. " + " ".join(_sentences(scores)),
    )
    return picture


def _draw(axes: Axes, title: str, scores: Sequence[ProbeScore]) -> None:
    axes.set_title(title)
    for task, color, marker in zip(PROPERTIES, COLORS, _MARKERS, strict=False):
        own = sorted((s for s in scores if s.task == task), key=lambda score: score.layer)
        layers = [score.layer for score in own]
        axes.plot(layers, [score.accuracy for score in own], color=color, marker=marker)
        axes.plot(layers, [score.control for score in own], color=color, linestyle="--", alpha=0.6)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(range(max(layers) + 1), ["embed.", *range(1, max(layers) + 1)])
    axes.set_xlabel("layer")


def _sentences(scores: Sequence[ProbeScore]) -> Iterator[str]:
    last = max(score.layer for score in scores)
    for place in get_args(Place):
        found = [score for score in scores if score.place == place and score.layer in (0, last)]
        words = ", ".join(
            f"{task} "
            + " to ".join(f"{score.accuracy:.0%}" for score in found if score.task == task)
            for task in PROPERTIES
        )
        yield f"{_PLACES[place].capitalize()}, from embedding to last layer: {words}."
