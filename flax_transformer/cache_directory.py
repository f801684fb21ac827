"""What is computed once and kept for every run of this user: tokens and compiled programs."""

import os
from pathlib import Path

from flax_transformer.config_error import ConfigError

_COMPILED_BYTES = 2 * 2**30
"""Compiled programs kept between two commands; beyond it the oldest go."""


def default_cache_directory() -> Path:
    """`$XDG_CACHE_HOME/flax_transformer`, with ~/.cache where that is not set."""
    try:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        raise ConfigError(
            "there is no home directory for the token cache: name a folder in the environment "
            "variable XDG_CACHE_HOME"
        ) from None
    return parent / "flax_transformer"


def keep_compiled_programs() -> None:
    """Has JAX, which must not be imported yet, find again what it compiled in an earlier command.

    JAX's own variables go before: JAX_ENABLE_COMPILATION_CACHE=false compiles everything anew.
    Where there is no folder that can be written, nothing is kept.
    """
    try:
        directory = default_cache_directory() / "compiled"
        directory.mkdir(parents=True, exist_ok=True)
        _remove_oldest(directory)
    except (ConfigError, OSError):
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
