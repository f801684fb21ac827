"""Ctrl-C and SIGTERM end a command in order and with the code that shells give them."""

import os
import signal
import sys
from types import FrameType, TracebackType

from flax_transformer.runtime.standard_streams import end_output

_PATIENCE = 5.0  # seconds after which a command that goes on is interrupted again
_AT_ONCE = 0.01
_MOST_DELAYS = 50
_INTERRUPTED = 128 + signal.SIGINT


def leave_at_once() -> None:
    """Has Ctrl-C end the program without a word, for the time in which its modules are loaded."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


class StopSignals:
    """While entered, a signal that asks the program to end raises `KeyboardInterrupt`.

    The program then ends with the code 128 plus the number of the signal.

    Libraries lose exceptions: one that is raised while Python collects garbage, which JAX listens
    to, is only reported. So the request is remembered, and the exception raised again until the
    body has ended.
    """

    def __init__(self) -> None:
        self._code: int | None = None
        self._ended = False
        self._delays = 0

    def __enter__(self) -> None:
        """Sets the handlers.

        Signals that are ignored, as under nohup, or that others handle, stay so.
        """
        self._report, self._report_unraisable = sys.excepthook, sys.unraisablehook
        sys.excepthook, sys.unraisablehook = self._printed, self._unraisable
        signal.signal(signal.SIGALRM, self._stop_again)
        usual = (signal.SIG_DFL, signal.default_int_handler, _leave)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) in usual:
                signal.signal(number, self._stop)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        code = self._code or (_INTERRUPTED if isinstance(error, KeyboardInterrupt) else None)
        if code is not None:
            # Whoever wants a command to end does not want to wait for a slow reader, nor for the
            # device: Python's own end waits for what it computes, and was seen to crash there.
            end_output(wait=False)
            os._exit(code)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._ended:
            _leave(number, frame)
        self._code = self._code or 128 + number
        self._interrupt(frame)

    def _stop_again(self, number: int, frame: FrameType | None) -> None:
        if not self._ended:
            self._interrupt(frame)

    def _interrupt(self, frame: FrameType | None) -> None:
        """Raises `KeyboardInterrupt`, unless a module is being loaded: extensions crash on it.

        Loading is given a moment to end, so that the body can still put things in order.
        """
        if _loads_module(frame):
            self._delays += 1
            if self._delays > _MOST_DELAYS:
                os._exit(self._code or _INTERRUPTED)
            signal.setitimer(signal.ITIMER_REAL, _AT_ONCE, _PATIENCE)
            return
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE, _PATIENCE)
        raise KeyboardInterrupt

    def _printed(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        """Prints an uncaught exception, unless it is an interruption that was lost.

        Before the body has ended, only C code that goes on without an exception calls this.
        """
        if not self._is_lost(kind):
            self._report(kind, error, traceback)

    def _unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        if not self._is_lost(unraisable.exc_type):
            self._report_unraisable(unraisable)

    def _is_lost(self, kind: type[BaseException]) -> bool:
        """Returns whether the exception is an interruption, and if so has it raised again.

        That happens as soon as the caller has gone on: raised in here it would be lost once more.
        """
        if self._ended or not issubclass(kind, KeyboardInterrupt):
            return False
        self._code = self._code or _INTERRUPTED  # other handlers raise it too
        signal.setitimer(signal.ITIMER_REAL, _AT_ONCE, _PATIENCE)
        return True


def _loads_module(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib."):
            return True
        frame = frame.f_back
    return False
