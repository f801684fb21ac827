"""The one timing loop: contenders take turns, so that whatever else the machine does hits all."""

import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Seconds:
    """How long one contender took, turn by turn."""

    turns: tuple[float, ...]

    @property
    def median(self) -> float:
        """What is reported: half of the turns took longer."""
        return statistics.median(self.turns)

    @property
    def least(self) -> float:
        """What the machine can do when nothing disturbs it."""
        return min(self.turns)

    def __truediv__(self, parts: float) -> "Seconds":
        """Seconds of one of the equal `parts` of a turn."""
        return Seconds(tuple(seconds / parts for seconds in self.turns))


@dataclass(frozen=True)
class Ratio:
    """How many times as long one contender takes as another."""

    of_medians: float
    of_least: float


def ratio(one: Seconds, other: Seconds) -> Ratio:
    """Returns how many times as long `one` takes as `other`."""
    return Ratio(one.median / other.median, one.least / other.least)


def total(parts: Iterable[Seconds]) -> Seconds:
    """Adds what several contenders took, turn by turn."""
    return Seconds(tuple(map(sum, zip(*(part.turns for part in parts), strict=True))))


def in_turns(
    contenders: Mapping[Name, Callable[[], object]],
    repeats: int,
    warm_up: int = 1,
    before: Callable[[], object] = lambda: None,
) -> dict[Name, Seconds]:
    """Times `contenders`, each once per round and every second round in the opposite order.

    contenders: each returns once its work is done (`jax.block_until_ready`, `synchronize`)
    repeats:    rounds that count
    warm_up:    rounds before them that do not count: compilation, caches, allocations
    before:     is called before each turn and is not timed
    """
    turns: dict[Name, list[float]] = {name: [] for name in contenders}
    for number in range(-warm_up, repeats):
        order = list(contenders.items())
        for name, run in order if number % 2 == 0 else reversed(order):
            before()
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            if number >= 0:
                turns[name].append(seconds)
    return {name: Seconds(tuple(seconds)) for name, seconds in turns.items()}
