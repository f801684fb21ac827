"""What a person sees of a server: what it serves and where, what to type, what it has done."""

import sys
import time
from pathlib import Path

import jax
from tqdm import tqdm

from flax_transformer.api.model import Model
from flax_transformer.runtime.outlived_streams import survive_stream_errors
from flax_transformer.serving.metrics import Metrics
from flax_transformer.serving.service import Watcher


class Report(Watcher):
    """Prints a line at each station; the server goes on when its reader is gone."""

    def __init__(self, workdir: Path, url: str, for_others: bool):
        """url:        where the server listens
        for_others: whether other machines can reach it
        """
        survive_stream_errors()
        self._workdir, self._url = workdir, url
        self._start = time.perf_counter()
        self._bar: tqdm | None = None
        if for_others:
            _say_on(
                sys.stderr,
                f"warning: {url} can be reached from other machines, without password or TLS: put "
                "a proxy with both before it, or leave out --host",
            )
        _say(f"listening on {url}; loading the model")

    def loaded(self, model: Model, programs: int) -> None:
        for note in model.notes:
            _say_on(sys.stderr, note)
        size = sum(leaf.size for leaf in jax.tree.leaves(model.params))
        steps = ", ".join(f"{step:,}" for step in model.steps)
        _say(f"serving {self._workdir}: {size:,} parameters of step(s) {steps}")
        _say(f"warming up: {programs} programs to compile, which are kept for the next start")
        self._bar = tqdm(total=programs, unit=" programs", leave=False, disable=None)

    def compiled_one(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def warm(self) -> None:
        if self._bar is not None:
            self._bar.close()
        seconds = time.perf_counter() - self._start
        _say(
            f"ready after {seconds:.1f} s; Ctrl-C answers what was taken in, and stops. Now:\n\n"
            f"  curl {self._url}/translate -H 'Content-Type: application/json' "
            '-d \'{"lines": ["The cat sleeps."]}\'\n\n'
            f"or look into the model at {self._url}/; {self._url}/openapi.json describes the rest"
        )

    def stopped(self, metrics: Metrics) -> None:
        """Says what the server has done."""
        if self._bar is not None:
            self._bar.close()
        for line in summary(metrics):
            _say(line)


def summary(metrics: Metrics) -> list[str]:
    """Returns how many requests there were, how they ended, and how long translations took."""
    by_status: dict[int, int] = {}
    for (_, status), count in sorted(metrics.requests.items()):
        by_status[status] = by_status.get(status, 0) + count
    statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(by_status.items()))
    total = sum(by_status.values())
    lines = [f"stopped; {total:,} requests" + (f": {statuses}" if total else "")]
    if metrics.batches.count:
        seconds = metrics.seconds["/translate"]
        lines.append(
            f"{metrics.sentences:,} lines of {metrics.tokens:,} tokens translated in "
            f"{metrics.batches.count:,} batches of {metrics.sentences / metrics.batches.count:.1f}"
        )
        if seconds.count:
            half, most = seconds.quantile(0.5), seconds.quantile(0.95)
            lines.append(f"/translate: half within {half:g} s, 95% within {most:g} s")
    return lines


def _say(line: str) -> None:
    _say_on(sys.stdout, line)


def _say_on(stream, line: str) -> None:
    tqdm.write(line, file=stream)
    stream.flush()
