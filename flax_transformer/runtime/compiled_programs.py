"""Programs that JAX compiled, kept for the next command.

JAX runs what it finds in its folder and never replaces what it cannot read. So the folder is one
that nobody else can write to, and what is damaged is removed before JAX looks; a list of checksums
beside the entries says what they should be.
"""

import atexit
import errno
import json
import os
import stat
import tempfile
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from flax_transformer.errors import UserError
from flax_transformer.files.cache_directory import (
    NO_HOME,
    default_cache_directory,
    name_another_folder,
    private_directory,
    say_once,
)
from flax_transformer.files.whole_file import remove_left_over, whole_file

_KEPT_BYTES = 2 * 2**30
"""Bytes of compiled programs kept between two commands; beyond them the oldest are removed."""

_READ_BYTES = 2**28
"""Bytes of them that are read at each start, from the newest on, in 0.1 to 0.4 s. Of those beyond,
only what is new or was touched is read."""

_SMALL_PROGRAM = 2**16

_AUTOTUNING = "xla_gpu_per_fusion_autotune_cache_dir"
"""What XLA found to be fastest on a GPU: text files."""

_LIST = "checksums.json"
_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"


class Record(NamedTuple):
    """What an undamaged entry is recognised by."""

    size: int
    modified: int
    checksum: int


def keep_compiled_programs() -> None:
    """Has JAX find again what it compiled in an earlier command; JAX must not be imported yet.

    JAX's own variables take precedence: JAX_ENABLE_COMPILATION_CACHE=false compiles everything
    anew, and JAX_COMPILATION_CACHE_DIR names another folder, which is left as it is. Where there is
    no folder of this user alone that can be written, nothing is kept, and the user is told.
    """
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    parent = default_cache_directory()
    # A command that started this one may have named the same folder.
    own = None if parent is None else os.path.realpath(parent / "compiled")
    if os.environ.get(_DIRECTORY, own) != own:
        return
    os.environ.pop(_DIRECTORY, None)
    try:
        directory = _open(parent)
    except UserError as error:
        say_once(f"note: compiled programs are not kept: {error}")
        return
    os.environ[_DIRECTORY] = str(directory)
    _tell_of_a_full_disk(directory)
    # So that damage from now on is seen in what this command adds.
    atexit.register(_list_new, directory)


def _tell_of_a_full_disk(directory: Path) -> None:
    """Tells the user once of a full disk; JAX would warn of every program that it cannot write.

    The programs that are there help all the same.
    """
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry")
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(_SMALL_PROGRAM))
    except OSError as error:
        place = f"{directory}: {error.strerror} ({name_another_folder()})"
        say_once(f"note: programs compiled now are not kept: {place}")


def _open(parent: Path | None) -> Path:
    """Returns the folder, with entries that can be used; raises `UserError` where there is none."""
    if parent is None:
        raise UserError(f"{NO_HOME} ({name_another_folder('a folder')})")
    try:
        directory, was_private = private_directory(parent / "compiled")
        check_entries(directory, was_private)
        if not os.access(directory, os.W_OK):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    except OSError as error:
        place = error.filename or parent / "compiled"
        raise UserError(f"{place}: {error.strerror} ({name_another_folder()})") from None
    return directory


def check_entries(directory: Path, was_private: bool = True, read_bytes: int = _READ_BYTES) -> None:
    """Removes what is damaged, another user's, no file, or too old to be kept; lists the rest.

    Two commands at once may each remove or list what the other one is writing: it is then compiled
    once more, nothing worse. Raises `OSError` where the folder cannot be read, or where what is
    damaged cannot be removed.
    """
    known = _read_list(directory / _LIST)
    kept: dict[str, Record] = {}
    room = _KEPT_BYTES
    for path, status in _entries(directory):
        name = str(path.relative_to(directory))
        room -= status.st_size
        read_bytes -= status.st_size
        record = None
        if room >= 0 and _is_own_file(status, was_private):
            record = _judge(path, status, known.get(name), thoroughly=read_bytes >= 0)
        if record:
            kept[name] = record
        else:
            path.unlink(missing_ok=True)
    if kept != known:
        remove_left_over(directory)
        # On a full disk what is there is still of use; unlisted, it is checked anew next time.
        with suppress(OSError), whole_file(directory / _LIST) as file:
            file.write(json.dumps(kept).encode())


def _list_new(directory: Path) -> None:
    with suppress(OSError):
        check_entries(directory, read_bytes=0)


def _entries(directory: Path) -> list[tuple[Path, os.stat_result]]:
    """Returns the entries of JAX and XLA with their status, the newest first.

    Links are not followed.
    """
    found = []
    for folder in (directory, directory / _AUTOTUNING):
        if not stat.S_ISDIR(_mode(folder)):
            continue
        for path in folder.iterdir():
            if folder.name == _AUTOTUNING or path.name.endswith("-cache"):
                with suppress(FileNotFoundError):  # another command removed it
                    found.append((path, path.lstat()))
    files = [entry for entry in found if not stat.S_ISDIR(entry[1].st_mode)]
    return sorted(files, key=lambda entry: entry[1].st_mtime_ns, reverse=True)


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _is_own_file(status: os.stat_result, was_private: bool) -> bool:
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        return False
    return was_private or not status.st_mode & 0o022


def _judge(
    path: Path, status: os.stat_result, known: Record | None, thoroughly: bool
) -> Record | None:
    """Returns what the entry is recognised by from now on, or None if it is damaged."""
    if known and not thoroughly and known[:2] == (status.st_size, status.st_mtime_ns):
        return known
    try:
        content = path.read_bytes()
    except OSError:
        return None
    record = Record(status.st_size, status.st_mtime_ns, zlib.crc32(content))
    if known:
        # JAX never writes to an entry that is there.
        same = (record.size, record.checksum) == (known.size, known.checksum)
        return record if same else None
    if path.parent.name == _AUTOTUNING:
        return record if content and b"\0" not in content else None
    return record if _can_be_unpacked(content) else None


def _can_be_unpacked(content: bytes) -> bool:
    """Returns whether `content` can be unpacked as JAX does it.

    JAX uses zstandard where Python or a package has it, and zlib elsewhere.
    """
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstandard_can_unpack(content)
    try:
        return bool(zlib.decompress(content))
    except zlib.error:
        return False


def _zstandard_can_unpack(content: bytes) -> bool:
    try:
        from compression.zstd import ZstdError, decompress  # from Python 3.14 on
    except ImportError:
        try:
            from zstandard import ZstdError, decompress
        except ImportError:
            return True  # another Python's, which this one never opens
    try:
        return bool(decompress(content))
    except ZstdError:
        return False


def _read_list(path: Path) -> dict[str, Record]:
    """Returns the records of the last check; none where the list is absent or damaged."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return {}
        records = json.loads(path.read_bytes())
        return {name: Record(*map(int, record)) for name, record in records.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
