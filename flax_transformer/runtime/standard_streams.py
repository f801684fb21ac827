"""Standard output and standard error, whatever the program that started this one made of them."""

import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO

STANDARD_OUTPUT = "standard output"


def prepare_streams() -> None:
    """Replaces `sys.stdout` and `sys.stderr` by streams for any text and any descriptor.

    They never fail on a character, they wait where the descriptor does not, and their errors say
    where they come from. What cannot be written to standard error is dropped, as there is nowhere
    to say so. A stream that is closed becomes /dev/null: else the next file to be opened would take
    its descriptor. `sys.__stdin__` and `sys.__stdout__` stay None then.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # os.open gives the lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = _as_text(sys.stdout, _Output, 1, STANDARD_OUTPUT)
    sys.stderr = _as_text(sys.stderr, _Messages, 2, "standard error")


def end_output(wait: bool = True) -> None:
    """Writes what is left for standard output, or discards it where that fails.

    wait: whether to wait for a slow reader; without, what cannot be written at once is discarded.

    Python would try to write the rest again as it ends, and report what nobody can help.
    """
    try:
        if wait or wait_for(1, select.POLLOUT, 0):
            sys.stdout.flush()
            return
    except OSError:
        pass
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def wait_for(descriptor: int, event: int, milliseconds: int | None = None) -> bool:
    """Waits for `event`, such as `select.POLLIN`, or a failure on `descriptor`.

    Returns whether either came within `milliseconds`; None waits without limit.
    """
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(milliseconds))


class _Output(io.BufferedWriter):
    """A stream to an open descriptor, of which each write takes all bytes.

    An interrupted write never repeats bytes: the layer below, which no signal handler enters, knows
    how far it came.
    """

    def __init__(self, descriptor: int, name: str, unbuffered: bool):
        super().__init__(io.FileIO(descriptor, "wb", closefd=False))
        self._title, self._unbuffered = name, unbuffered

    def write(self, data) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            try:
                taken = super().write(rest)
            except BlockingIOError as error:
                taken = error.characters_written
                wait_for(self.fileno(), select.POLLOUT)
            except OSError as error:
                raise OSError(error.errno, error.strerror, self._title) from None
            rest = rest[taken:]
        if self._unbuffered:
            self.flush()
        return size

    def flush(self) -> None:
        while True:
            try:
                return super().flush()
            except BlockingIOError:
                wait_for(self.fileno(), select.POLLOUT)
            except OSError as error:
                raise OSError(error.errno, error.strerror, self._title) from None


class _Messages(_Output):
    """A stream that drops what cannot be written."""

    def write(self, data) -> int:
        with suppress(OSError):
            super().write(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def _as_text(
    before: TextIO | None, kind: type[_Output], descriptor: int, name: str
) -> io.TextIOWrapper:
    """Returns the descriptor as a stream like `before`, which is None where it was closed."""
    if before is not None:
        before.flush()
    unbuffered = kind is _Messages or getattr(before, "write_through", False)
    return io.TextIOWrapper(
        kind(descriptor, name, unbuffered),
        encoding=getattr(before, "encoding", "utf-8"),
        errors="backslashreplace",
        newline="\n",
        line_buffering=getattr(before, "line_buffering", False),
        write_through=unbuffered,
    )
