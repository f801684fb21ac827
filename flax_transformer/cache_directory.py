"""Where things computed once are kept for every run of this user. They only help: where they cannot
be kept or read, a run goes on without them."""

import functools
import os
import sys
from contextlib import suppress
from pathlib import Path

_COMPILED_BYTES = 2 * 2**30
"""Compiled programs kept between two commands; beyond it the oldest go."""

NO_HOME = "there is no home directory"


def default_cache_directory() -> Path | None:
    """`$XDG_CACHE_HOME/flax_transformer`, with ~/.cache where that is not set; None without one."""
    try:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        return None
    return parent / "flax_transformer"


def name_another_folder(which: str = "another folder") -> str:
    """What a user can do about a place where nothing can be kept."""
    return f"name {which} in the environment variable XDG_CACHE_HOME"


@functools.cache
def say_once(line: str) -> None:
    """Tells the user on stderr, whatever has become of that."""
    with suppress(OSError):
        print(line, file=sys.stderr)


def make_directory(directory: Path) -> None:
    """Makes `directory` and those above it where they are missing; nobody else can write to them.

    Raises `OSError`.
    """
    for folder in (*reversed(directory.parents), directory):
        folder.mkdir(mode=0o755, exist_ok=True)


def keep_compiled_programs() -> None:
    """Has JAX, which must not be imported yet, find again what it compiled in an earlier command.

    JAX's own variables go before: JAX_ENABLE_COMPILATION_CACHE=false compiles everything anew.
    Where there is no folder that can be written, nothing is kept.
    """
    parent = default_cache_directory()
    if parent is None:
        return
    directory = parent / "compiled"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_oldest(directory)
    except OSError:
        return
    if os.access(directory, os.W_OK):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(directory))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _remove_oldest(directory: Path) -> None:
    room = _COMPILED_BYTES
    files = [(file, file.stat()) for file in directory.iterdir() if file.is_file()]
    for file, status in sorted(files, key=lambda entry: entry[1].st_mtime, reverse=True):
        room -= status.st_size
        if room < 0:
            file.unlink(missing_ok=True)
