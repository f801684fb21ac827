"""The learning rate against the step, as the optimizer's own schedule gives it."""

from collections.abc import Mapping

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from flax_transformer.config import Config
from flax_transformer.inspection.drawing import COLORS, GRAY, Picture, new_picture
from flax_transformer.training.optimizer import learning_rate_schedule

_POINTS = 2_000


def plot_schedule(configs: Config | Mapping[str, Config]) -> Picture:
    """Returns the learning rate of every step of a run, or of several by name."""
    runs = {"": configs} if isinstance(configs, Config) else dict(configs)
    with new_picture(7, 3.8, "".join(runs)) as picture:
        axes = picture.subplots()
        for (name, config), color in zip(runs.items(), _colors(len(runs)), strict=True):
            steps, rates = rates_by_step(config)
            axes.plot(steps, rates, color=color, label=name or None)
            if len(runs) == 1:
                _mark(axes, config, steps, rates)
        picture.suptitle("Warm-up, and the fall after it")
        axes.set(xlabel="step", ylabel="learning rate", xlim=(0, None), ylim=(0, None))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.grid(color="0.9", linewidth=0.6)
        if len(runs) > 1:
            axes.legend()
    picture.describe(
        "The learning rate of each step (Section 5.3): it rises in a line over the warm-up, then "
        "falls with the inverse square root of the step" + _cooldown_words(runs) + ".",
        "Curve of the learning rate over steps. "
        + " ".join(f"{name} {_peak_words(config)}".strip() for name, config in runs.items()),
    )
    return picture


def rates_by_step(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps from 1 to the last, those where the line bends among them, and their rates."""
    last, warmup = config.training.steps, config.optimizer.warmup_steps
    bends = [1, warmup, last - config.optimizer.cooldown_steps, last]
    even = np.linspace(1, last, min(last, _POINTS)).round()
    steps = np.unique([*even, *(step for step in bends if 1 <= step <= last)]).astype(np.int32)
    rates = jax.device_get(learning_rate_schedule(config)(jax.device_put(steps - 1)))
    return steps, np.broadcast_to(rates, steps.shape)


def _colors(count: int) -> list[str]:
    return [COLORS[number % len(COLORS)] for number in range(count)]


def _mark(axes: Axes, config: Config, steps: np.ndarray, rates: np.ndarray) -> None:
    """Names the peak, and where the cool-down begins."""
    peak = int(rates.argmax())
    axes.plot(steps[peak], rates[peak], "o", color=COLORS[1])
    axes.annotate(
        f"{rates[peak]:.2g} at step {steps[peak]:,}", (steps[peak], rates[peak]),
        xytext=(8, -2), textcoords="offset points",
    )  # fmt: skip
    if config.optimizer.cooldown_steps:
        begins = config.training.steps - config.optimizer.cooldown_steps
        axes.axvline(begins, color=GRAY, linewidth=0.8, linestyle="--")
        axes.annotate(
            "cool-down", (begins, 0), xytext=(4, 6), textcoords="offset points", color=GRAY
        )


def _cooldown_words(runs: Mapping[str, Config]) -> str:
    if not any(config.optimizer.cooldown_steps for config in runs.values()):
        return ""
    return ", and at the end of the run in a line to zero, which the paper does not do"


def _peak_words(config: Config) -> str:
    steps, rates = rates_by_step(config)
    peak = int(rates.argmax())
    return f"rises to {rates[peak]:.2g} at step {steps[peak]:,} of {steps[-1]:,}."
