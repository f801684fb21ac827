"""Lines that arrive together are translated together, by the one thread that owns the model."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from flax_transformer.serving.limits import Limits
from flax_transformer.serving.metrics import Metrics
from flax_transformer.serving.refusals import RefusedError
from flax_transformer.translation.hypotheses import Hypothesis

_LINE_CHARACTERS = 200
"""A line counts as one for every so many characters: it may be translated in pieces."""

_LONGEST_RETRY = 60


class Searcher(Protocol):
    """What translates, such as a `TrainedModel`."""

    def search(
        self,
        lines: Sequence[str],
        *,
        prefixes: Sequence[str] | None = None,
        beam_size: int | None = None,
    ) -> list[list[Hypothesis]]: ...


class _Line:
    """A line of a request, and what was found for it."""

    __slots__ = ("found", "prefix", "text")

    def __init__(self, text: str, prefix: str):
        self.text, self.prefix = text, prefix
        self.found: list[Hypothesis] | Exception | None = None

    @property
    def weight(self) -> int:
        return 1 + len(self.text) // _LINE_CHARACTERS


@dataclass(eq=False)
class _Request:
    """Lines that somebody waits for; `left` are those not taken yet.

    kind: what lines of a batch have in common: the beam size, and whether there are prefixes
    """

    kind: tuple[int, bool]
    lines: list[_Line]
    left: deque[_Line]
    unanswered: int
    done: asyncio.Future


class Batcher:
    """Collects lines of many requests, and gives them to the model as soon as it is free.

    Lines are taken from the requests in turns, so that one of many lines does not hold up the
    others. Where the batch before held several requests, the next one is waited for a moment, until
    as many have come. Everything but the model runs in the thread of the event loop.
    """

    def __init__(self, limits: Limits, metrics: Metrics, most: int, wait_seconds: float):
        """Makes a batcher that has no model yet.

        most:         lines of a batch
        wait_seconds: for which an idle model waits for more lines
        """
        self._limits, self._metrics = limits, metrics
        self._most, self._wait_seconds = most, wait_seconds
        self._requests: list[_Request] = []
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future]] = deque()
        self._arrived = asyncio.Event()
        self._together = 1  # requests of the batch before
        self._seconds_per_line = 0.01
        self._thread = ThreadPoolExecutor(1, "model")

    @property
    def waiting_lines(self) -> int:
        """The number of lines, and calls, that the model has not begun with."""
        return sum(len(request.left) for request in self._requests) + len(self._calls)

    async def translate(
        self, lines: Sequence[str], prefixes: Sequence[str] | None, beam_size: int
    ) -> list[list[Hypothesis]]:
        """Returns the hypotheses of each line; raises `RefusedError` where too many lines wait.

        When cancelled, the lines that the model has not begun with are forgotten.
        """
        self._require_room(len(lines))
        given = prefixes if prefixes is not None else [""] * len(lines)
        made = [_Line(*each) for each in zip(lines, given, strict=True)]
        done = asyncio.get_running_loop().create_future()
        request = _Request((beam_size, any(given)), made, deque(made), len(made), done)
        self._requests.append(request)
        self._arrived.set()
        try:
            await done
        finally:
            request.left.clear()
            with suppress(ValueError):
                self._requests.remove(request)
        return [_result(line) for line in made]

    async def call(self, function: Callable[[], Any]) -> Any:
        """Returns what `function` returns in the model's thread."""
        self._require_room(1)
        done = asyncio.get_running_loop().create_future()
        self._calls.append((function, done))
        self._arrived.set()
        return await done

    def _require_room(self, lines: int) -> None:
        waiting, most = self.waiting_lines, self._limits.waiting_lines
        if waiting + lines > most:
            seconds = min(max(1, round(waiting * self._seconds_per_line)), _LONGEST_RETRY)
            raise RefusedError(
                429,
                f"{waiting:,} lines wait, and at most {most:,} may: try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )

    async def run(self, model: Searcher) -> None:
        """Translates what comes with `model`, until cancelled."""
        while True:
            await self._arrived.wait()
            if self._calls:
                await self._run_call()
            if self._requests:
                await self._wait_for_more()
            if batch := self._take():
                await self._run_batch(model, batch)
            if not self._calls and not self._requests:
                self._arrived.clear()

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """Returns what `function` returns in the model's thread, before anything is asked for."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def close(self) -> None:
        """Lets the thread end, once it is through with what it does."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run_call(self) -> None:
        function, done = self._calls.popleft()
        if done.done():  # nobody waits any more
            return
        try:
            result = await self.in_thread(function)
        except Exception as error:
            if not done.done():
                done.set_exception(error)
        else:
            if not done.done():
                done.set_result(result)

    async def _wait_for_more(self) -> None:
        """Waits until as many requests are there as were in the batch before, or for a moment."""
        end = time.perf_counter() + self._wait_seconds
        while len(self._requests) < self._together and time.perf_counter() < end:
            await asyncio.sleep(self._wait_seconds / 8)

    def _take(self) -> list[tuple[_Request, _Line]]:
        """Takes the lines of the next batch: of one kind, from each request in turn."""
        if not self._requests:
            return []
        kind = self._requests[0].kind
        turns = deque(request for request in self._requests if request.kind == kind)
        taken: list[tuple[_Request, _Line]] = []
        room = self._most
        while turns and room > 0:
            request = turns.popleft()
            line = request.left.popleft()
            room -= line.weight
            taken.append((request, line))
            if request.left:
                turns.append(request)
        begun = {request for request, _ in taken}
        # Those that got nothing come first next time.
        others = [request for request in self._requests if request not in begun]
        self._requests = others + [
            request for request in self._requests if request in begun and request.left
        ]
        self._together = len(begun)
        return taken

    async def _run_batch(self, model: Searcher, batch: list[tuple[_Request, _Line]]) -> None:
        (beam_size, _), lines = batch[0][0].kind, [line for _, line in batch]
        start = time.perf_counter()
        await self.in_thread(lambda: _search(model, lines, beam_size))
        self._seconds_per_line = (time.perf_counter() - start) / len(lines)
        best = [line.found[0].tokens for line in lines if isinstance(line.found, list)]
        self._metrics.count_batch(len(lines), sum(best))
        for request, _ in batch:
            request.unanswered -= 1
            if not request.unanswered and not request.done.done():
                request.done.set_result(None)


def _search(model: Searcher, lines: list[_Line], beam_size: int) -> None:
    """Fills in what is found for the lines.

    Where the search fails, each line is tried alone, so that one does not take the others along.
    """
    texts, prefixes = [line.text for line in lines], [line.prefix for line in lines]
    try:
        found = model.search(
            texts, prefixes=prefixes if any(prefixes) else None, beam_size=beam_size
        )
        for line, hypotheses in zip(lines, found, strict=True):
            line.found = hypotheses
    except Exception as error:
        if len(lines) > 1:
            for line in lines:
                _search(model, [line], beam_size)
        else:
            lines[0].found = error


def _result(line: _Line) -> list[Hypothesis]:
    if isinstance(line.found, Exception):
        raise line.found
    assert line.found is not None
    return line.found
