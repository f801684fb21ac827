"""Reading what should be an ordinary file of a moderate size, and may be anything."""

import errno
import stat
from pathlib import Path


def read_ordinary(path: Path, most: int) -> bytes:
    """Returns the bytes of `path`; raises `OSError` where they are more than `most`, or where
    `require_ordinary` does.
    """
    size = require_ordinary(path)
    if size > most:
        raise OSError(errno.EFBIG, f"it is larger than the {most:,} bytes that it may have")
    return path.read_bytes()


def require_ordinary(path: Path) -> int:
    """Returns the size of a file in bytes; raises `OSError` where it is a pipe, a device or a
    folder: reading some of these would wait, and others never end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not an ordinary file")
    return status.st_size
