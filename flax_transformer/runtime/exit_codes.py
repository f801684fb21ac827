"""What a command says about the error that ends it, and the code that it exits with."""

import errno
import os
import re
import sys
from pathlib import Path

from flax_transformer.errors import FlaxTransformerError
from flax_transformer.files.whole_file import cannot_write
from flax_transformer.runtime.standard_streams import STANDARD_OUTPUT


def exit_code(error: BaseException) -> int | None:
    """Tells the user about `error` and returns the code to exit with; None for a defect."""
    if isinstance(error, BrokenPipeError) and error.filename == STANDARD_OUTPUT:
        return 1  # whoever read our output has gone; there is nobody left to tell
    if (message := _message(error)) is None:
        return None
    print(f"error: {message}", file=sys.stderr)
    return 2


def _message(error: BaseException) -> str | None:
    """Returns what to tell the user, or None for a defect.

    That is an error's own message, or which file cannot be used.
    """
    if isinstance(error, FlaxTransformerError):
        return str(error)
    if isinstance(error, OSError) and error.filename == STANDARD_OUTPUT:
        return str(cannot_write(Path(STANDARD_OUTPUT), error))
    # A library that writes files may have an error of its own for a full disk.
    cause: BaseException | None = error
    while cause is not None:
        for number in (errno.ENOSPC, errno.EDQUOT):
            if os.strerror(number) in str(cause):
                full = OSError(number, os.strerror(number))
                return str(cannot_write(Path(_file_of(cause)), full))
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and error.filename is not None:
        return f"{_file_of(error)}: {error.strerror or error}"
    return None


def _file_of(error: BaseException) -> str:
    """Returns the file that an error is about.

    An error of the system names it; one of TensorStore quotes it in its message.
    """
    if isinstance(error, OSError) and error.filename is not None:
        name = error.filename  # or the number of a descriptor
        return os.fsdecode(name) if isinstance(name, bytes) else str(name)
    return ["a file", *re.findall(r'"(/[^"]+)"', str(error))][-1]
