"""Makes a record of a finished run: settings, machine, versions, learning curve and scores.

    python benchmarks/record_training.py --workdir runs/NAME --command "python train.py ..."

Writes benchmarks/records/<name>.json and a picture of the curve beside it. The text that was
trained on or translated is not part of a record.
"""

import datetime
import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import tyro
from recording import RECORDS, machine

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


def draw_curve(lines: list[dict[str, Any]], title: str, path: Path) -> None:
    """Training and validation loss, and BLEU on an axis of its own, over steps."""
    train = [line for line in lines if line["kind"] == "train"]
    validation = [line for line in lines if line["kind"] == "validation"]
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    left.plot(
        [x["step"] for x in train], [x["loss"] for x in train], color="0.6", label="training loss"
    )
    left.plot(
        [x["step"] for x in validation],
        [x["loss"] for x in validation],
        "o-",
        color="tab:blue",
        label="validation loss",
    )
    left.set(xlabel="step", ylabel="label-smoothed cross entropy, nats a token", title=title)
    right = left.twinx()
    right.plot(
        [x["step"] for x in validation],
        [x["bleu"] for x in validation],
        "s-",
        color="tab:orange",
        label="validation BLEU (greedy)",
    )
    right.set(ylabel="BLEU", ylim=(0, None))
    handles = [*left.get_lines(), *right.get_lines()]
    left.legend(handles, [str(line.get_label()) for line in handles], loc="center right")
    figure.savefig(path, dpi=110)


def main(arguments: Arguments) -> None:
    lines = read_metrics(arguments.workdir)
    name = arguments.name or arguments.workdir.name
    train = [line for line in lines if line["kind"] == "train"]
    scores = {
        path.stem: {k: v for k, v in json.loads(path.read_text()).items() if k != "test_set"}
        for path in sorted((arguments.workdir / "evaluation").glob("*.json"))
    }
    config = config_to_dict(load_config(arguments.workdir / "config.json"))
    config["data"].pop("directory", None)
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "command": arguments.command,
        "note": arguments.note,
        "config": config,
        "training_seconds": round(sum(x["tokens"] / x["tokens_per_second"] for x in train)),
        "validation_seconds": round(sum(x.get("seconds", 0) for x in lines)),
        "target_tokens": round(sum(x["tokens"] for x in train)),
        "scores": scores,
        "validation": [x for x in lines if x["kind"] == "validation"],
        "training": [{k: x[k] for k in ("step", "loss", "tokens_per_second")} for x in train],
    }
    RECORDS.mkdir(exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (RECORDS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    draw_curve(lines, name, RECORDS / f"{name}.png")
    print(RECORDS / f"{name}.json")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
