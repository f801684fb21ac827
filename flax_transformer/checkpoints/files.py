"""The folders of checkpoints on disk: which there are, whether they are whole, how to remove them.

A checkpoint is a folder named by its step. Beside Orbax's files it holds CHECKSUMS, the size and
the CRC-32 of each of them. Orbax alone lets every third single flipped bit change values in
silence.
"""

import json
import os
import re
import shutil
import stat
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from flax_transformer.errors import UserError

CHECKSUMS = "checksums.json"

_TEMPORARY = ".orbax-checkpoint-tmp"  # in the names of folders that Orbax has not finished
_REMOVED, _DAMAGED = ".removed", ".damaged"
_READ_AT_ONCE = 1 << 20
_THREADS = 4


class DamagedCheckpointError(Exception):
    """A checkpoint that cannot be used; the message says what is wrong, without its folder."""


def list_steps(directory: Path) -> list[int]:
    """Returns the steps of the checkpoints in `directory`, the oldest first, whole or not.

    Raises `UserError` where the folder is there and cannot be read.
    """
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{directory} cannot be read: {error.strerror}") from None
    return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]{0,8}", name))


def write_checksums(checkpoint: Path) -> None:
    """Writes CHECKSUMS of all files that lie in the folder now."""
    paths = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    names = [str(path.relative_to(checkpoint)) for path in paths]
    with ThreadPoolExecutor(_THREADS) as pool:  # zlib computes a CRC without the interpreter lock
        files = dict(zip(names, pool.map(_size_and_crc, paths), strict=True))
    with (checkpoint / CHECKSUMS).open("w", encoding="utf-8") as file:
        json.dump({"files": files, "crc32": _crc_of(files)}, file, indent=0)
        file.flush()
        os.fsync(file.fileno())


def check_whole(checkpoint: Path, items: Sequence[str]) -> bool:
    """Compares the files of `items`, folders in the checkpoint, with their checksums.

    Returns whether there were checksums: what an earlier version wrote has none. Raises
    `DamagedCheckpointError` at the first difference.
    """
    for item in items:
        if not (checkpoint / item).is_dir():
            raise DamagedCheckpointError(f"{item} is missing")
    try:
        content = (checkpoint / CHECKSUMS).read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DamagedCheckpointError(f"{CHECKSUMS} cannot be read: {error.strerror}") from None
    try:
        written = json.loads(content)
        files = written["files"]
        if written["crc32"] != _crc_of(files):
            raise ValueError
    except (KeyError, RecursionError, TypeError, ValueError):
        raise DamagedCheckpointError(f"{CHECKSUMS} is not what was written") from None
    wanted = [name for name in files if name.split("/")[0] in items]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(_size_and_crc, [checkpoint / name for name in wanted])
        for name, size_and_crc in zip(wanted, found, strict=True):
            if size_and_crc != files[name]:
                raise DamagedCheckpointError(f"{name} is not what was written")
    return True


def _crc_of(files: dict[str, list[int]]) -> int:
    return zlib.crc32(json.dumps(files, sort_keys=True).encode())


def _size_and_crc(path: Path) -> list[int]:
    size = crc = 0
    try:
        # A pipe in the file's place would otherwise be waited for until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DamagedCheckpointError(f"{path.name} is not a file")
            while block := file.read(_READ_AT_ONCE):
                size, crc = size + len(block), zlib.crc32(block, crc)
    except OSError as error:
        raise DamagedCheckpointError(f"{path.name} cannot be read: {error.strerror}") from None
    return [size, crc]


def remove_checkpoint(checkpoint: Path) -> None:
    """Renames the folder, then removes it, so that what is left is not taken for a checkpoint."""
    removed = checkpoint.with_name(checkpoint.name + _REMOVED)
    with suppress(FileNotFoundError):
        shutil.rmtree(removed, ignore_errors=True)
        checkpoint.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def set_aside(checkpoint: Path) -> Path:
    """Renames a damaged checkpoint, so that its step can be written again; returns the new path."""
    aside = checkpoint.with_name(checkpoint.name + _DAMAGED)
    number = 1
    while aside.exists():
        number += 1
        aside = checkpoint.with_name(f"{checkpoint.name}{_DAMAGED}-{number}")
    return checkpoint.rename(aside)


def temporary_folder(checkpoint: Path) -> Path:
    """Returns the folder that Orbax fills before it takes the name of `checkpoint`."""
    return checkpoint.with_name(checkpoint.name + _TEMPORARY)


def remove_unfinished(directory: Path) -> None:
    """Removes what killed runs left between the checkpoints; nobody else may write there now."""
    with suppress(OSError):
        for path in list(directory.iterdir()):
            step, _, rest = path.name.partition(".")
            if step.isdigit() and ("." + rest).startswith((_TEMPORARY, _REMOVED)):
                shutil.rmtree(path, ignore_errors=True)
