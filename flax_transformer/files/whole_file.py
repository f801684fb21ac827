"""Files that appear whole or not at all, and that replace nothing but what they should."""

import errno
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from flax_transformer.errors import UserError

_PARTIAL = re.compile(r".+\.[0-9a-f]{32}\.partial")
_LONGEST_NAME = 200  # characters of a name that are kept beside the ending of a partial file
_LEFT_OVER_SECONDS = 3600


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a file that replaces `path` once the body has ended well, flushed to the disk.

    Until then it lies beside `path` under a name of its own, so that neither another writer's file
    nor a link that somebody left there is touched. The mode and the owner of a file that `path`
    names are kept; a link is replaced, not followed. Raises `OSError`.
    """
    partial = path.with_name(f"{path.name[:_LONGEST_NAME]}.{uuid.uuid4().hex}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(partial, flags, 0o666)
    try:
        with open(descriptor, "wb") as file:
            _keep_mode(path, descriptor)
            yield file
            file.flush()
            os.fsync(descriptor)
        partial.replace(path)
        _flush_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def output_file(path: Path) -> Iterator[BinaryIO]:
    """Yields the file for what a user named to be written.

    A file is written as by `whole_file`, also where a link leads to it. Anything else, such as a
    pipe or /dev/null, is written to directly. Raises `OSError`.
    """
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        regular = True
    with whole_file(Path(os.path.realpath(path))) if regular else path.open("wb") as file:
        yield file


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file as `whole_file` does; raises `UserError` where it cannot be written."""
    try:
        with whole_file(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> UserError:
    """Returns what to tell the user, in one line."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = ": make room there, then give the same command again" if full else ""
    return UserError(f"{path} cannot be written: {error.strerror or error}{remedy}")


def remove_left_over(directory: Path) -> None:
    """Removes what killed writers left in `directory`.

    Those are partial files that nobody has written to for an hour.
    """
    with suppress(OSError):
        for entry in os.scandir(directory):
            if not _PARTIAL.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError):
                age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if age > _LEFT_OVER_SECONDS:
                    os.unlink(entry.path)


def _keep_mode(path: Path, descriptor: int) -> None:
    try:
        status = path.lstat()
    except OSError:
        return
    if stat.S_ISREG(status.st_mode):
        with suppress(OSError):  # only root may give files away
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def _flush_directory(directory: Path) -> None:
    """Makes a renaming last through a power failure, on the systems that can."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
