"""Makes a record of a finished run: settings, machine, versions, learning curve and scores.

    python -m benchmarks.record_training --workdir runs/NAME --command "python train.py ..."

Writes benchmarks/records/training/NAME/record.json and a picture of the curve beside it. The text
that was trained on or translated is not part of a record.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import tyro

from benchmarks.recording import RECORDS, measurement, write_record
from flax_transformer.config.json import config_to_dict, load_config
from flax_transformer.training.metrics import read_metrics

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "sentencepiece", "sacrebleu")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Turns a work directory into a record."""

    workdir: Path
    command: str
    """The command line that made the run."""
    name: str | None = None
    """Name of the record; by default that of the work directory."""
    note: str = ""
    """What a reader should know, such as other load on the machine."""
    records: Path = RECORDS / "training"
    """Folder of all such records."""


def draw_curve(lines: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draws training and validation loss, and BLEU on an axis of its own, over steps."""

    def points(kind: str, name: str) -> tuple[list[float], list[float]]:
        some = [line for line in lines if line["kind"] == kind]
        return [line["step"] for line in some], [line[name] for line in some]

    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    left.plot(*points("train", "loss"), color="0.6", label="training loss")
    left.plot(*points("validation", "loss"), "o-", color="tab:blue", label="validation loss")
    left.set(xlabel="step", ylabel="label-smoothed cross entropy, nats per token", title=title)
    right = left.twinx()
    bleu = points("validation", "bleu")
    right.plot(*bleu, "s-", color="tab:orange", label="validation BLEU (greedy)")
    right.set(ylabel="BLEU", ylim=(0, None))
    handles = [*left.get_lines(), *right.get_lines()]
    left.legend(handles, [str(line.get_label()) for line in handles], loc="center right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def figures_of(workdir: Path, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Reads settings, times, scores and curves of the run in `workdir`."""
    train = [line for line in lines if line["kind"] == "train"]
    scores = {
        path.stem: {k: v for k, v in json.loads(path.read_text()).items() if k != "test_set"}
        for path in sorted((workdir / "evaluation").glob("*.json"))
    }
    config = config_to_dict(load_config(workdir / "config.json"))
    config["data"].pop("directory", None)
    return {
        "config": config,
        "training_seconds": round(sum(x["tokens"] / x["tokens_per_second"] for x in train)),
        "validation_seconds": round(sum(x.get("seconds", 0) for x in lines)),
        "target_tokens": round(sum(x["tokens"] for x in train)),
        "scores": scores,
        "validation": [x for x in lines if x["kind"] == "validation"],
        "training": [{k: x[k] for k in ("step", "loss", "tokens_per_second")} for x in train],
    }


def main(arguments: Arguments) -> None:
    lines = read_metrics(arguments.workdir)
    name = arguments.name or arguments.workdir.name
    path = arguments.records / name / "record.json"
    figures = figures_of(arguments.workdir, lines)
    write_record(path, [measurement(PACKAGES, arguments.note, figures, arguments.command)])
    draw_curve(lines, name, path.with_name("curve.png"))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
