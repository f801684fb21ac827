"""A file that grows while a run goes on, and whose failures cost records, never the run."""

import errno
import os
import stat
from collections import deque
from contextlib import suppress
from pathlib import Path

from flax_transformer.parallel.console import Console

_MOST_WAITING = 10_000
"""Records kept in memory while the file cannot be written; beyond, the oldest are lost."""

# Not O_WRONLY, with which a pipe in the file's place would have a run wait for its reader.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class AppendedFile:
    """Appends records to `path`, each whole or not at all, and makes its folder.

    Where that fails, as on a full disk, it is told once; the records wait in memory and are tried
    again with each later one. The file is opened each time, so whatever befalls it may pass.

    what     the records' name in messages, such as "lines"
    header   what the file begins with
    lines    whether a record begins on a line of its own
    """

    def __init__(self, path: Path, what: str, header: bytes = b"", lines: bool = False):
        self._path, self._what, self._header, self._lines = path, what, header, lines
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._told = False

    def append(self, record: bytes) -> None:
        self._waiting.append(record)
        if error := self._write_waiting():
            if not self._told:
                Console.warn(
                    f"{self._path} cannot be written: {error.strerror or error}; the run goes on, "
                    f"and its {self._what} wait in memory until they can be"
                )
            self._told = True
            while len(self._waiting) > _MOST_WAITING:
                self._waiting.popleft()
                self._lost += 1

    def close(self) -> None:
        """Tries once more, and says how many records are lost, if any."""
        error = self._write_waiting()
        self._lost += len(self._waiting)
        self._waiting.clear()
        if self._lost:
            reason = f": {error.strerror or error}" if error else ""
            Console.warn(f"{self._lost:,} {self._what} of {self._path} are lost{reason}")

    def _write_waiting(self) -> OSError | None:
        if not self._waiting:
            return None
        try:
            self._path.parent.mkdir(exist_ok=True)
            descriptor = os.open(self._path, _FLAGS, 0o666)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EINVAL, "it is not a regular file")
                while self._waiting:
                    self._write(descriptor, self._waiting[0])
                    self._waiting.popleft()
            finally:
                os.close(descriptor)
        except OSError as error:
            return error
        return None

    def _write(self, descriptor: int, record: bytes) -> None:
        size = os.fstat(descriptor).st_size
        data = memoryview(self._beginning(descriptor, size) + record)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except BaseException:
            with suppress(OSError):  # no part of a record stays: the next one would continue it
                os.ftruncate(descriptor, size)
            raise

    def _beginning(self, descriptor: int, size: int) -> bytes:
        """What must precede a record where the file ends now."""
        if not size:
            return self._header
        torn = self._lines and os.pread(descriptor, 1, size - 1) != b"\n"
        return b"\n" if torn else b""
