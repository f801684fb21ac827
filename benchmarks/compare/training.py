"""Training for a given time, however often it is stopped, and what the run's metrics say of it.

The time is that of training steps alone: compilation, validation, checkpoints and scores are not in
it. It is kept nowhere but in metrics.jsonl, whose lines after the last checkpoint go when a run
is resumed: so time and state always belong together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flax_transformer.training.metrics import read_metrics
from flax_transformer.training.run import Run
from flax_transformer.training.train_loop import start_training

Lines = Sequence[dict[str, Any]]
"""Of metrics.jsonl, as `read_metrics` gives them."""


@dataclass(frozen=True)
class Point:
    """A validation: where it was, in steps and in `seconds` of training, and what it gave."""

    step: int
    seconds: float
    loss: float
    """Label-smoothed cross entropy, nats a token."""
    bleu: float
    """Of greedy search."""


def train(run: Run, seconds: float, validations: int) -> bool:
    """Trains until `seconds` have been spent, with `validations` at equal distances of time, the
    last at the end. False when asked to stop before; the next call goes on from there."""
    settings = run.config.training
    with start_training(run) as trainer:
        if training_seconds(read_metrics(run.workdir)) >= seconds:
            return True
        for batch in trainer.batches():
            trainer.take_step(batch)
            logged = run.step % settings.log_every == 0
            if logged:
                trainer.log()
                lines = read_metrics(run.workdir)
                used = training_seconds(lines)
                trainer.console.expect(round(run.step * max(seconds / used, 1)))
                if _validation_is_due(lines, seconds, validations):
                    trainer.validate()
                    trainer.console.say(f"{used:,.0f} of {seconds:,.0f} seconds of training")
                if used >= seconds:
                    trainer.save()
                    return True
            if run.step % settings.checkpoint_every == 0:
                trainer.save()
            if trainer.should_stop():
                if not logged:
                    trainer.log()  # the seconds up to the checkpoint that has just been written
                return False
        raise AssertionError("the schedule has no end that any time could reach")
    return False  # it was asked to stop in the middle of a validation or a compilation


def _validation_is_due(lines: Lines, seconds: float, validations: int) -> bool:
    used, curve = training_seconds(lines), learning_curve(lines)
    before = curve[-1].seconds if curve else 0.0
    interval = seconds / validations
    return used >= seconds or used // interval > before // interval


def training_seconds(lines: Lines) -> float:
    """Adds up the time spent in training steps."""
    return sum(x["tokens"] / x["tokens_per_second"] for x in lines if x["kind"] == "train")


def training_tokens(lines: Lines) -> float:
    """Adds up the target tokens trained on."""
    return sum(x["tokens"] for x in lines if x["kind"] == "train")


def learning_curve(lines: Lines) -> list[Point]:
    """Returns all validations so far."""
    return [
        Point(x["step"], training_seconds(lines[:index]), x["loss"], x["bleu"])
        for index, x in enumerate(lines)
        if x["kind"] == "validation"
    ]


def seconds_to_loss(curve: Sequence[Point], loss: float) -> float | None:
    """Finds when the validation loss first was at `loss`, on straight lines between validations;
    None where it never was."""
    before = None
    for point in curve:
        if point.loss <= loss:
            if before is None:
                return point.seconds
            share = (before.loss - loss) / (before.loss - point.loss)
            return before.seconds + share * (point.seconds - before.seconds)
        before = point
    return None
