"""The lines of a metrics file, of which a power failure may have torn some."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from flax_transformer.files.whole_file import whole_file
from flax_transformer.parallel.console import Console

_LONGEST_LINE = 1 << 20
_BLANK = b" \t\r\n"
_NAMED_LINES = 5


@dataclass(frozen=True)
class Line:
    """A line of the file that is not blank."""

    number: int
    """From 1 on."""
    content: bytes
    """Without what surrounds the line; empty if it cannot be read."""
    values: dict[str, Any] | None
    """At least `step` and `kind`; None if it cannot be read."""


def read_lines(path: Path) -> list[Line]:
    """The lines of `path`, readable or not; none where there is no file. Raises `OSError`."""
    if not path.exists():
        return []
    if not path.is_file():  # such as a pipe, which nobody might ever write to
        raise OSError(errno.EINVAL, "it is not a regular file")
    with path.open("rb") as file:
        found = enumerate(_contents(file), start=1)
        return [_parse(number, content) for number, content in found if content.strip(_BLANK)]


def _contents(file: BinaryIO) -> Iterator[bytes]:
    while content := file.readline(_LONGEST_LINE):
        piece = content
        while len(piece) == _LONGEST_LINE and not piece.endswith(b"\n"):
            piece = file.readline(_LONGEST_LINE)
        yield content


def _parse(number: int, content: bytes) -> Line:
    # A power failure can leave NULs where the end of the file was; the next line follows them.
    content = content.strip(b"\0" + _BLANK)
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return Line(number, b"", None)
    readable = (
        isinstance(values, dict)
        and type(values.get("step")) is int
        and isinstance(values.get("kind"), str)
    )
    return Line(number, content, values) if readable else Line(number, b"", None)


def go_back(path: Path, step: int) -> None:
    """Leaves in `path` the readable lines up to `step`, and keeps the file as it was under another
    name if some cannot be read. Where that fails, a warning is all."""
    try:
        lines = read_lines(path)
        unreadable = [line.number for line in lines if line.values is None]
        kept = [line.content for line in lines if line.values and line.values["step"] <= step]
        content = b"".join(line + b"\n" for line in kept)
        if not lines:
            return
        if unreadable:
            _replace_damaged(path, content, unreadable)
        else:
            _leave(path, content)
    except OSError as error:
        Console.warn(
            f"{path} could not be put in order ({error.strerror or error}): what it has of steps "
            f"after {step:,} will be in it twice, and what cannot be read stays in it"
        )


def _leave(path: Path, content: bytes) -> None:
    """Makes `content` that of the file, which it begins as a rule: then no room is needed."""
    with path.open("rb") as file:
        begins = file.read(len(content)) == content
    if not begins:
        _write(path, content)
    elif path.stat().st_size > len(content):
        os.truncate(path, len(content))


def _replace_damaged(path: Path, content: bytes, unreadable: list[int]) -> None:
    aside = _set_aside(path)
    try:
        _write(path, content)
    except OSError:
        aside.unlink()
        raise
    numbers = ", ".join(map(str, unreadable[:_NAMED_LINES]))
    more = len(unreadable) - _NAMED_LINES
    Console.warn(
        f"{path}: lines that cannot be read: {len(unreadable):,} (number {numbers}"
        + (f" and {more:,} more" if more > 0 else "")
        + f"); they are left out, and the file as it was is kept as {aside.name}"
    )


def _set_aside(path: Path) -> Path:
    """A second name of the file, or a copy of it where the file system has no links."""
    for number in count(1):
        aside = path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")
        try:
            os.link(path, aside)
        except FileExistsError:
            continue
        except OSError:
            if aside.exists():
                continue
            with whole_file(aside) as file, path.open("rb") as original:
                shutil.copyfileobj(original, file)
        return aside
    raise AssertionError("numbers have no end")


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)
