"""What a person and the metrics file are told of the steps of a run."""

from pathlib import Path
from typing import Any

import jax

from flax_transformer.config import Config
from flax_transformer.parallel.console import Console
from flax_transformer.parallel.hosts import is_first_process
from flax_transformer.training.metrics import MetricsWriter, RunningMeans
from flax_transformer.training.optimizer import learning_rate_schedule


class TrainingLog:
    """Shows means and writes them to the metrics of `workdir`, from `step` on.

    Of several processes only the first does; `console`: where it shows them.
    """

    def __init__(self, config: Config, workdir: Path, step: int):
        self._metrics = MetricsWriter(workdir, step) if is_first_process() else None
        self.console = Console(config.training.steps, step)
        self._learning_rate = learning_rate_schedule(config)
        self._means = RunningMeans()

    def add(self, sums: dict[str, Any]) -> None:
        """Counts in the metrics of one step, as `train_step` gives them, on the host."""
        self._means.add(sums)

    def write(self, step: int) -> None:
        """Writes the means since the last time, with the speed and the rate of `step`."""
        values = self._means.means()
        self._means = RunningMeans()
        values["tokens_per_second"] = self.console.log(step, values)
        values["learning_rate"] = float(jax.device_get(self._learning_rate(step - 1)))
        self._write(step, "train", values)

    def write_validation(self, step: int, values: dict[str, float], best: bool) -> None:
        """Writes what the validation after `step` has found, and whether it is the best so far."""
        self._write(step, "validation", values)
        self.console.say(
            f"step {step:,}: validation loss {values['loss']:.4f}, perplexity "
            f"{values['perplexity']:.2f}, greedy BLEU {values['bleu']:.2f}"
            + (" (best so far)" if best else "")
        )

    def _write(self, step: int, kind: str, values: dict[str, float]) -> None:
        if self._metrics:
            self._metrics.write(step, kind, values)

    def close(self) -> None:
        """Writes what still waits, and removes the progress bar."""
        self.console.close()
        if self._metrics:
            self._metrics.close()
