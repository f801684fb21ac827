"""Lines as they come: whole batches from a file, single lines from somebody who types."""

import os
import queue
import select
import stat
import threading
from collections.abc import Iterable, Iterator

from flax_transformer.data.plain_text import BLOCK, TELLING, is_plain, no_line_feeds, read_text
from flax_transformer.errors import UserError
from flax_transformer.runtime.standard_streams import wait_for

LINES_AT_ONCE = 1024
LONGEST_LINE = 1 << 20
"""Bytes: room for a book, and so little that no input, such as one without line ends, takes the
memory that translating needs."""

_CHARACTERS_AT_ONCE = 8 * LONGEST_LINE
_PAUSE = 0.02  # seconds without a new line after which those that came are given out
_BLOCKS_AHEAD = 16
_COUNTED_BYTES = 1 << 20
_BYTE_ORDER_MARK = "\ufeff"
"""At the start of a line it comes from files that were joined."""


class LineReader:
    """Lines of a file descriptor, read ahead by a thread, so that nobody waits for a full batch.

    name:  of the descriptor, for messages
    total: number of lines, or None where only the end will tell, as from a pipe
    typed: whether they come from a keyboard
    """

    def __init__(self, descriptor: int, name: str = "standard input"):
        """Raises `UserError` where the descriptor is not for reading."""
        self._name = name
        try:
            self.total = _count_lines(descriptor)
        except OSError as error:
            raise self._cannot_read(error) from None
        self.typed = os.isatty(descriptor)
        # The lines of each block; at the end None, or what went wrong. Bounded, so that a large
        # file is not held in memory.
        self._queue: queue.Queue[list[str] | BaseException | None] = queue.Queue(_BLOCKS_AHEAD)
        # As a daemon, it does not keep the program from ending while it waits for a line.
        threading.Thread(target=self._read, args=(descriptor,), daemon=True).start()

    def _read(self, descriptor: int) -> None:
        number = 0
        end: BaseException | None = None
        try:
            for lines in _split(read_text(_blocks(descriptor), self._name)):
                long = lines.pop() if lines and _is_too_long(lines[-1]) else None
                self._queue.put(lines)
                number += len(lines)
                if long is not None:
                    raise self._too_long(long, number + 1)
        except OSError as error:
            end = self._cannot_read(error)
        except MemoryError:
            end = UserError(f"{self._name} line {number + 1} does not fit into memory: make room")
        except BaseException as error:
            end = error
        self._queue.put(end)

    def _too_long(self, line: str, number: int) -> UserError:
        if number == 1 and "\r" in line:
            return no_line_feeds(self._name)
        return UserError(
            f"{self._name} line {number} has more than {LONGEST_LINE:,} bytes: put each "
            "sentence on a line of its own, or divide the text, for instance with fold -s"
        )

    def _cannot_read(self, error: OSError) -> UserError:
        return UserError(f"{self._name} cannot be read: {error.strerror}")

    def chunks(self) -> Iterator[list[str]]:
        """Yields all lines in order, as many at a time as have come.

        What goes wrong is raised after the lines before it, as `UserError` where the user can
        help it: a line that is not UTF-8 or too long, an input that cannot be read.
        """
        chunk: list[str] = []
        size = 0
        while True:
            try:
                block = self._queue.get(timeout=_PAUSE if chunk else None)
            except queue.Empty:
                yield chunk
                chunk, size = [], 0
                continue
            if not isinstance(block, list):
                break
            for line in block:
                chunk.append(line)
                size += len(line)
                if len(chunk) == LINES_AT_ONCE or size >= _CHARACTERS_AT_ONCE:
                    yield chunk
                    chunk, size = [], 0
        if chunk:
            yield chunk
        if block is not None:
            raise block


def _split(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yields the lines that each of `texts` completes, without their ends.

    A line longer than `LONGEST_LINE` comes as soon as it is that long, as the last of a list. Each
    of `texts` is shorter.
    """
    begun = ""
    for text in texts:
        # Not splitlines: Unicode's other line ends occur inside sentences.
        *lines, rest = text.split("\n")
        if lines:
            lines[0] = begun + lines[0]
            begun = ""
            if "\r" in text or lines[0].endswith("\r"):
                lines = [line.removesuffix("\r") for line in lines]
            if _BYTE_ORDER_MARK in text or lines[0].startswith(_BYTE_ORDER_MARK):
                lines = [line.removeprefix(_BYTE_ORDER_MARK) for line in lines]
        begun += rest
        if lines and _is_too_long(lines[0]):
            del lines[1:]
        elif _is_too_long(begun):
            lines.append(begun)
            begun = ""
        yield lines
    if begun:
        yield [begun.removesuffix("\r").removeprefix(_BYTE_ORDER_MARK)]


def _is_too_long(line: str) -> bool:
    # A character takes one to four bytes.
    return 4 * len(line) > LONGEST_LINE and len(line.encode()) > LONGEST_LINE


def _blocks(descriptor: int) -> Iterator[bytes]:
    while block := _read_block(descriptor):
        yield block


def _read_block(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, BLOCK)
        except BlockingIOError:  # as a process that shares the descriptor has set it
            wait_for(descriptor, select.POLLIN)


def _count_lines(descriptor: int) -> int | None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    if not is_plain(os.pread(descriptor, TELLING, os.lseek(descriptor, 0, os.SEEK_CUR))):
        return None
    count, last, place = 0, b"\n", os.lseek(descriptor, 0, os.SEEK_CUR)
    while block := os.pread(descriptor, _COUNTED_BYTES, place):
        count, last, place = count + block.count(b"\n"), block[-1:], place + len(block)
    return count + (last != b"\n")
