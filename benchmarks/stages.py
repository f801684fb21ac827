"""A measurement of several commands: each is given once, and the whole goes on where it stopped."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flax_transformer.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
_SECONDS_TO_SAVE = 60


@dataclass(frozen=True)
class Deadline:
    """The moment, of `time.monotonic`, by which all must have stopped."""

    moment: float = float("inf")

    @classmethod
    def in_minutes(cls, minutes: float) -> "Deadline":
        return cls(time.monotonic() + 60 * minutes)

    @property
    def seconds_left(self) -> float:
        return self.moment - time.monotonic()


class OutOfTimeError(Exception):
    """The deadline has come; the same command goes on from there."""


def run_stage(
    name: str, words: Sequence[str], result: Path, deadline: Deadline | None = None
) -> None:
    """Runs a command of the project that makes `result`, unless it is there.

    At the deadline the command is asked to stop, as a training does that saves first. Raises
    `OutOfTimeError` then, and `UserError` where it ends without the result.
    """
    if result.exists():
        print(f"== {name}: done before", flush=True)
        return
    left = float("inf") if deadline is None else deadline.seconds_left
    if left < _SECONDS_TO_SAVE:
        raise OutOfTimeError(name)
    print(f"== {name}: python {' '.join(words)}", flush=True)
    start = time.perf_counter()
    code = exit_code_of(words, left - _SECONDS_TO_SAVE)
    if code is None:
        raise OutOfTimeError(name)
    if code or not result.exists():
        raise UserError(f"{name} ended with code {code}; the same command goes on from there")
    print(f"== {name}: {time.perf_counter() - start:,.0f} s", flush=True)


def exit_code_of(words: Sequence[str], seconds: float) -> int | None:
    """Runs Python with `words` in the project; None where it was asked to stop, after `seconds`."""
    with subprocess.Popen([sys.executable, *words], cwd=ROOT) as process:
        try:
            return process.wait(None if seconds == float("inf") else seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
            return None
