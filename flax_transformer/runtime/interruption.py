"""Ctrl-C and the signals of schedulers as a request to stop after the current step."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType, TracebackType
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

Result = TypeVar("Result")

_POLLED_SECONDS = 0.05
_SCHEDULERS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class InterruptedRunError(Exception):
    """The run was asked to stop in the middle of something that need not be finished."""


class Interruption:
    """While entered, the first signal asks to stop; a second Ctrl-C ends the program.

    Of several processes any one may be asked. JAX's preemption service, which listens for SIGTERM
    from the moment that the processes meet, has all of them agree on when to stop.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._agreed = False
        self._polls = 0
        self._abandoned = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        several = jax.process_count() > 1
        for number in (signal.SIGINT, *_SCHEDULERS):
            # What nohup ignores stays ignored. SIGTERM is the service's own.
            ignored = number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
            if not ignored and not (several and number == signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def reached(self) -> bool:
        """Returns whether to stop, the same in every process: all must ask equally often."""
        if jax.process_count() > 1 and not self._agreed:
            self._agreed = multihost_utils.reached_preemption_sync_point(self._polls)
            self._polls += 1
        return self._agreed or (jax.process_count() == 1 and self._signal is not None)

    def poll(self) -> None:
        """Raises `InterruptedRunError` when `reached`."""
        if self.reached():
            raise InterruptedRunError

    def run(self, work: Callable[[], Result]) -> Result:
        """Returns what `work` returns: a compilation, say, of minutes that no signal ends.

        When asked to stop, raises `InterruptedRunError` and abandons `work`. One of several
        processes waits for the end of `work` instead.
        """
        if jax.process_count() > 1:
            return work()
        future: Future[Result] = Future()
        threading.Thread(target=_fulfil, args=(future, work), daemon=True).start()
        while True:
            try:
                return future.result(_POLLED_SECONDS)
            except TimeoutError:
                if future.done():  # the error is that of `work`
                    raise
            if self._signal is not None:
                self._abandoned = True
                raise InterruptedRunError

    @property
    def exit_code(self) -> int | None:
        """The code, as shells give it, of a run that was asked to stop; None for any other.

        130 after Ctrl-C, 143 after SIGTERM and the other signals.
        """
        if self._signal == signal.SIGINT:
            return 128 + signal.SIGINT
        return 128 + signal.SIGTERM if self._agreed or self._signal is not None else None

    def exit(self) -> None:
        """Ends the program with `exit_code` if the run was asked to stop."""
        if self.exit_code is None:
            return
        if self._abandoned:  # Python would not end before a compilation does, or end in a crash
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.exit_code)
        sys.exit(self.exit_code)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._signal = self._signal or number
        if jax.process_count() == 1:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return
        # While a process waits for the others inside JAX, Python's handlers do not run.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)


def _fulfil(future: Future[Result], work: Callable[[], Result]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
