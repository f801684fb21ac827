"""Text that a command reads and writes, line by line: standard streams, or files that are named."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from flax_transformer.errors import UserError
from flax_transformer.files.whole_file import cannot_write, output_file


def read_lines(path: Path, option: str) -> list[str]:
    """All lines of the file that `option` names; `UserError` where they are no text."""
    # The libraries take long to load, which --help should not.
    from flax_transformer.translation.line_reader import LineReader

    reader = LineReader(*open_input(path, option))
    return [line for chunk in reader.chunks() for line in chunk]


def open_input(path: Path | None, option: str = "--input") -> tuple[int, str]:
    """A file descriptor to read from, and what to call it in messages."""
    if path is None:
        if sys.__stdin__ is None:
            raise UserError("standard input is closed: name a file with --input")
        return 0, "standard input"
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder: name a file")
    try:
        return os.open(path, os.O_RDONLY), str(path)
    except OSError as error:
        raise UserError(f"{option} {path} cannot be read: {error.strerror}") from None


@contextmanager
def open_output(path: Path | None) -> Iterator[Callable[[str], None]]:
    """A function that writes text to standard output, or to `path` as `output_file` does.

    Raises `UserError` where the file cannot be written.
    """
    if path is None:
        if sys.__stdout__ is None:
            raise UserError("standard output is closed: name a file with --output")
        yield partial(write_at_once, sys.stdout.buffer)
        return
    if path.is_dir():
        raise UserError(f"--output {path} is a folder: name a file")

    def write(text: str) -> None:
        try:
            write_at_once(file, text)
        except OSError as error:
            raise not_written(path, error) from None

    others: OSError | None = None
    try:
        with output_file(path) as file:
            try:
                yield write
            except OSError as error:  # such as that of a checkpoint
                others = error
                raise
    except OSError as error:
        if error is others:
            raise
        raise not_written(path, error) from None


def write_at_once(file: BinaryIO, text: str) -> None:
    file.write(text.encode())
    file.flush()


def not_written(path: Path, error: OSError) -> UserError:
    return UserError(f"--output {cannot_write(path, error)}")
