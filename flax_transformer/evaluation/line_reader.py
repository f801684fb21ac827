"""Lines as they come: whole batches from a file, single lines from somebody who types."""

import os
import queue
import stat
import threading
from collections.abc import Iterator

from flax_transformer.config_error import ConfigError

LINES_AT_ONCE = 1024

_PAUSE = 0.02  # seconds without a new line after which those that came are given out
_COUNTED_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineReader:
    """Lines of a file descriptor, read ahead by a thread, so that nobody waits for a full batch.

    name: of the descriptor, for messages. total: number of lines, or None where only the end will
    tell, as from a pipe. typed: whether they come from a keyboard.
    """

    def __init__(self, descriptor: int, name: str = "standard input"):
        self._name = name
        self.total = _count_lines(descriptor)
        self.typed = os.isatty(descriptor)
        # Bounded, so that a large file is not held in memory.
        self._queue: queue.Queue[str | ConfigError | None] = queue.Queue(4 * LINES_AT_ONCE)
        # As a daemon, it does not keep the program from ending while it waits for a line.
        threading.Thread(target=self._read, args=(descriptor,), daemon=True).start()

    def _read(self, descriptor: int) -> None:
        try:
            # A reader of its own: Python cannot end while a thread waits inside sys.stdin.
            with open(descriptor, "rb", closefd=False) as file:
                # Binary files end lines at "\n" alone; Unicode's others occur inside sentences.
                for number, line in enumerate(file, 1):
                    self._queue.put(self._decode(line, number))
            self._queue.put(None)
        except OSError as error:
            self._queue.put(ConfigError(f"{self._name} cannot be read: {error.strerror}"))
        except ConfigError as error:
            self._queue.put(error)

    def _decode(self, line: bytes, number: int) -> str:
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        try:
            return line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"{self._name} line {number} is not UTF-8 (byte 0x{line[error.start]:02x}): "
                "convert the text, for instance with iconv -f LATIN1 -t UTF-8"
            ) from None

    def chunks(self) -> Iterator[list[str]]:
        """All lines in order, as many at a time as have come.

        Raises `ConfigError` at a line that is not UTF-8, after the lines before it.
        """
        chunk: list[str] = []
        while True:
            try:
                item = self._queue.get(timeout=_PAUSE if chunk else None)
            except queue.Empty:
                yield chunk
                chunk = []
                continue
            if isinstance(item, str):
                chunk.append(item)
                if len(chunk) < LINES_AT_ONCE:
                    continue
            if chunk:
                yield chunk
                chunk = []
            if isinstance(item, ConfigError):
                raise item
            if item is None:
                return


def _count_lines(descriptor: int) -> int | None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    count, last, place = 0, b"\n", os.lseek(descriptor, 0, os.SEEK_CUR)
    while block := os.pread(descriptor, _COUNTED_BYTES, place):
        count, last, place = count + block.count(b"\n"), block[-1:], place + len(block)
    return count + (last != b"\n")
