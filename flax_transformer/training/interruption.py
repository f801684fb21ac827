"""Ctrl-C and SIGTERM as a request to stop after the step at hand."""

import signal
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Interruption:
    """While entered, the first signal asks to stop; a second Ctrl-C ends the program.

    Of several processes any one may be asked: JAX's preemption service, which waits for SIGTERM
    from the moment that the processes meet, has all of them agree on the step to stop after.
    """

    def __init__(self) -> None:
        self._requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if jax.process_count() > 1:
            self._handle(signal.SIGINT, self._pass_on)
        else:
            self._handle(signal.SIGINT, self._request)
            self._handle(signal.SIGTERM, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`, the same in every process; every process asks at every
        step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested

    def _handle(self, number: signal.Signals, handler) -> None:
        self._before[number] = signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGTERM)
