"""What a run measures, as lines of metrics.jsonl and as TensorBoard curves."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_transformer.errors import UserError
from flax_transformer.parallel.console import Console
from flax_transformer.training.appended_file import AppendedFile
from flax_transformer.training.metrics_file import go_back, read_lines
from flax_transformer.workdir import CURVES, METRICS_FILE

if TYPE_CHECKING:
    from flax_transformer.training.curves import Curves


class MetricsWriter:
    """Appends to the metrics of a work directory, from `step` on.

    First takes out the lines of later steps, which a killed run wrote and the resumed one will
    write again, and what cannot be read. Whatever fails costs metrics, never the run.
    """

    def __init__(self, workdir: Path, step: int):
        path = workdir / METRICS_FILE
        go_back(path, step)
        self._lines = AppendedFile(path, "lines", lines=True)
        self._curves = _open_curves(workdir / CURVES, step + 1)

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Adds one line {"step", "kind", **values}; kind is train, validation or test."""
        line = json.dumps({"step": step, "kind": kind} | values) + "\n"
        self._lines.append(line.encode())
        if self._curves:
            self._curves.write(step, {f"{kind}/{name}": value for name, value in values.items()})

    def close(self) -> None:
        self._lines.close()
        if self._curves:
            self._curves.close()


def _open_curves(directory: Path, step: int) -> "Curves | None":
    try:
        from flax_transformer.training.curves import Curves
    except Exception as error:  # in whatever way a package is broken, curves are all that it costs
        Console.warn(f"no curves for TensorBoard are written: {type(error).__name__}: {error}")
        return None
    return Curves(directory, step)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Reads the lines of the run's metrics, oldest first, without those that are damaged; empty
    where there are none.

    Raises `UserError` where the file cannot be read.
    """
    path = workdir / METRICS_FILE
    try:
        return [line.values for line in read_lines(path) if line.values]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


class RunningMeans:
    """Adds up the metrics of steps on the host, and gives their means over tokens."""

    def __init__(self):
        self._sums: dict[str, float] = {}
        self._steps = 0

    def add(self, sums: dict[str, Any]) -> None:
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._steps += 1

    def means(self) -> dict[str, float]:
        """Returns loss, perplexity and accuracy over the tokens added, and the gradient's mean norm
        over the steps if it was added."""
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
