"""Reading what should be an ordinary file of a moderate size, and may be anything."""

import errno
import stat
from pathlib import Path


def read_ordinary(path: Path, most: int) -> bytes:
    """The bytes of `path`; raises `OSError` where it has over `most`, or is a pipe, a device or a
    folder, of which some would be waited for and others never end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not an ordinary file")
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"it is larger than the {most:,} bytes that it may have")
    return path.read_bytes()
