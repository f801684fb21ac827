"""Standard output and error that a run outlives: when they fail, the text is lost, not the run."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = {"stdout": "standard output", "stderr": "standard error"}


def survive_stream_errors() -> None:
    """Makes an error of standard output or standard error cost the text alone, from now on.

    A reader that is gone is such an error, for example. The first error of standard output is told
    on standard error.
    """
    for name in _NAMES:
        stream = getattr(sys, name)
        if not isinstance(stream, _Outlived):
            setattr(sys, name, _Outlived(stream, name))


class _Outlived:
    """A text stream like `stream`, to which writing never fails."""

    def __init__(self, stream: Any, name: str):
        self._stream = _Nowhere() if stream is None else stream
        self._name = name
        self._told = name == "stderr"  # there is nowhere left to tell of its errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._surviving():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(_printable(text, self._stream.encoding))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._surviving():
            self._stream.flush()

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:  # it is closed
            return False

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) or not self._drain(error):
                self._stream = _Nowhere()
            if not self._told:
                self._told = True
                reason = getattr(error, "strerror", None) or error
                sys.stderr.write(
                    f"warning: {_NAMES[self._name]} cannot be written: {reason}; the run goes on, "
                    "without what it prints there\n"
                )
                sys.stderr.flush()

    def _drain(self, error: OSError) -> bool:
        """Discards what waits in the stream; returns whether the stream can still be written to.

        Python would try to write what waits when it ends, and fail. A pipe without a reader has no
        further use; elsewhere, as on a disk without room, later text may be written again.
        """
        try:
            number = self._stream.fileno()
            kept = os.dup(number)
        except (OSError, ValueError):
            return False
        try:
            _point_to_nowhere(number)
            self._stream.flush()
            if not isinstance(error, BrokenPipeError):
                os.dup2(kept, number)
        except (OSError, ValueError):
            return False
        finally:
            os.close(kept)
        return True


class _Nowhere(io.TextIOBase):
    """A stream like /dev/null, with no descriptor."""

    def write(self, text: str) -> int:
        return len(text)


def _printable(text: str, encoding: str | None) -> str:
    """Returns `text` with escapes for the characters that `encoding` lacks."""
    encoding = encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _point_to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, number)
    os.close(nowhere)
