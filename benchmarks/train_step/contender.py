"""What takes turns in the timing of training steps: our step, and peers, one file each in peers/.

A peer is a module peers/NAME.py that `--peer NAME` names. It trains the same model in another
library, and has

    PACKAGES                                          names of the packages whose versions matter
    check(config)                                     raises `UserError` for what it cannot train
    prepare(config, params, batches, dtype, steps)    returns a `Contender`

    params   ours, as numpy arrays: where all contenders begin
    batches  numpy arrays, one sentence per row, which come again and again
    dtype    "float32" or "bfloat16", of matrix products
    steps    how many will be taken, for a table of learning rates (`learning_rate_schedule`)
"""

import importlib
import types
from pathlib import Path
from typing import Protocol

from flax_transformer.errors import UserError

PEERS = tuple(sorted(path.stem for path in (Path(__file__).parent / "peers").glob("*.py")))


class Contender(Protocol):
    """A model in training."""

    def step(self) -> None:
        """Starts one step on the next batch."""

    def wait(self) -> None:
        """Returns once every step is done."""

    def losses(self) -> list[float]:
        """Returns the mean loss of each step so far."""

    @property
    def peak_bytes(self) -> int | None:
        """Device memory that a step takes at most; None where it is unknown."""


def take_steps(contender: Contender, steps: int) -> None:
    """Takes `steps` steps: one turn."""
    for _ in range(steps):
        contender.step()
    contender.wait()


def load_peer(name: str) -> types.ModuleType:
    """Loads peers/`name`.py; raises `UserError` where its library is missing."""
    try:
        return importlib.import_module(f"benchmarks.train_step.peers.{name}")
    except ImportError as error:
        remedy = f"pip install {error.name or name}"
        raise UserError(f"--peer {name} cannot be loaded ({error}): {remedy}") from None
