"""Every line comes out, whatever kind of descriptor it comes in by."""

import os
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from flax_transformer.errors import UserError
from flax_transformer.translation import line_reader
from flax_transformer.translation.line_reader import LINES_AT_ONCE, LineReader

LONGEST_LINE = 1 << 20


@contextmanager
def pipe(blocking=True):
    source, sink = os.pipe()
    os.set_blocking(source, blocking)
    try:
        with open(sink, "wb", buffering=0) as file:
            yield source, file
    finally:
        os.close(source)


def written(content: bytes, *, blocking=True):
    """A pipe's reading end, with a thread that writes `content` to the other one."""
    source, sink = os.pipe()
    os.set_blocking(source, blocking)

    def write():
        with open(sink, "wb") as file:
            file.write(content)

    threading.Thread(target=write, daemon=True).start()
    return source


def lines_of(descriptor: int) -> list[str]:
    return [line for chunk in LineReader(descriptor).chunks() for line in chunk]


def test_a_descriptor_that_does_not_wait_loses_nothing():
    with pipe(blocking=False) as (source, sink):
        chunks = LineReader(source).chunks()
        for part, line in [(b"one\ntw", "one"), (b"o\n", "two"), (b"three\n", "three")]:
            time.sleep(0.1)  # in which a read finds nothing
            sink.write(part)
            assert next(chunks) == [line]
        assert not os.get_blocking(source)  # others share it
        sink.write(b"last")
        sink.close()
        assert list(chunks) == [["last"]]


@pytest.mark.parametrize("blocking", [True, False])
def test_blocks_end_anywhere(blocking):
    lines = ["x" * (length * 37 % 5000) + "é\x01\u2028\r" for length in range(2000)]
    content = "".join(f"{line}\r\n" for line in lines).encode()
    assert lines_of(written(content, blocking=blocking)) == lines
    assert lines_of(written(content.removesuffix(b"\r\n"), blocking=blocking))[-1] == lines[-1][:-1]


def test_few_lines_at_once():
    chunks = list(LineReader(written(b"\n" * 5000)).chunks())
    assert sum(map(len, chunks)) == 5000 and max(map(len, chunks)) == LINES_AT_ONCE


@pytest.mark.parametrize("end", [b"", b"\n", b"x\nmore"])
def test_a_line_may_be_long_but_not_longer(end):
    content = b"first\n" + b"a" * LONGEST_LINE + end
    if not end.startswith(b"x"):
        assert lines_of(written(content)) == ["first", "a" * LONGEST_LINE]
        return
    chunks = LineReader(written(content), "here").chunks()
    assert next(chunks) == ["first"]
    with pytest.raises(UserError, match=r"here line 2 has more than 1,048,576 bytes: put each"):
        list(chunks)


def test_a_line_without_an_end_takes_little_memory(monkeypatch):
    monkeypatch.setattr(line_reader.os, "read", lambda descriptor, size: b"a" * size)
    before = peak_kilobytes()
    with pipe() as (source, _), pytest.raises(UserError, match="line 1 has more than"):
        lines_of(source)
    assert peak_kilobytes() - before < 64 << 10


def test_long_lines_are_not_collected():
    count = 200
    with pipe() as (source, sink):
        reader = LineReader(source)
        sent = []

        def write():
            for _ in range(count):
                sink.write(b"a" * (LONGEST_LINE - 1) + b"\n")
                sent.append(True)
            sink.close()

        threading.Thread(target=write, daemon=True).start()
        time.sleep(1)
        assert len(sent) < count / 2
        chunks = list(reader.chunks())
        assert sum(map(len, chunks)) == count and max(map(len, chunks)) < count / 2


@pytest.mark.parametrize(
    ("error", "seen", "message"),
    [
        (MemoryError(), UserError, "standard input line 3 does not fit into memory"),
        (OSError(5, "Input/output error"), UserError, "cannot be read: Input/output error"),
        (RuntimeError("a defect"), RuntimeError, "a defect"),
    ],
)
def test_what_goes_wrong_in_the_thread_reaches_the_caller(monkeypatch, error, seen, message):
    blocks = iter([b"one\n", b"two\nthr"])

    def read(descriptor, size):
        for block in blocks:
            return block
        raise error

    monkeypatch.setattr(line_reader.os, "read", read)
    source, sink = os.pipe()
    chunks = LineReader(source).chunks()
    seen_lines = []
    with pytest.raises(seen, match=message):
        for chunk in chunks:
            seen_lines += chunk
    assert seen_lines == ["one", "two"]
    os.close(source), os.close(sink)


def test_a_descriptor_for_writing_is_a_mistake(tmp_path):
    for path in (tmp_path / "file", os.devnull):
        sink = os.open(path, os.O_WRONLY | os.O_CREAT)
        with pytest.raises(UserError, match="standard input cannot be read: Bad file descriptor"):
            lines_of(sink)
        os.close(sink)


def peak_kilobytes() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak
