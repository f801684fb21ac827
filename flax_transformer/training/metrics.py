"""What a run measures, as lines of metrics.jsonl and as TensorBoard curves."""

import json
import math
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from flax_transformer.whole_file import write_whole

FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends to the metrics of a work directory, from `step` on.

    Lines of later steps, which a killed run wrote and the resumed one will write again, and a
    line cut off by the end of the process are taken out first.
    """

    def __init__(self, workdir: Path, step: int):
        path = workdir / FILE
        kept = [line for line in read_metrics(workdir) if line["step"] <= step]
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Adds one line {"step", "kind", **values}; kind is train, validation or test."""
        self._file.write(json.dumps({"step": step, "kind": kind} | values) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """All whole lines of the run's metrics, oldest first; empty where there are none."""
    path = workdir / FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


class RunningMeans:
    """Sums of `LossSums` on the host, read out as means over tokens."""

    def __init__(self):
        self._sums: dict[str, float] = {}
        self._steps = 0

    def add(self, sums: dict[str, Any]) -> None:
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._steps += 1

    def means(self) -> dict[str, float]:
        """Loss, perplexity and accuracy over the tokens added, the gradient's mean norm if any."""
        tokens = max(self._sums["tokens"], 1)
        values = {
            "loss": self._sums["loss"] / tokens,
            "perplexity": math.exp(min(self._sums["nll"] / tokens, 700.0)),
            "accuracy": self._sums["correct"] / tokens,
            "tokens": self._sums["tokens"],
        }
        if "gradient_norm" in self._sums:
            values["gradient_norm"] = self._sums["gradient_norm"] / self._steps
        return values
