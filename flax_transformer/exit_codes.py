"""What a command says about the error that ends it, and the code that it exits with."""

import errno
import os
import sys
from pathlib import Path

from flax_transformer.config_error import ConfigError
from flax_transformer.standard_streams import STANDARD_OUTPUT
from flax_transformer.whole_file import cannot_write

_FULL = (errno.ENOSPC, errno.EDQUOT)


def exit_code(error: BaseException) -> int | None:
    """The code for `error`, after telling the user about it; None if it is the program's own."""
    if isinstance(error, BrokenPipeError) and error.filename == STANDARD_OUTPUT:
        return 1  # whoever read our output has gone; there is nobody left to tell
    if (message := _message(error)) is None:
        return None
    print(f"error: {message}", file=sys.stderr)
    return 2


def _message(error: BaseException) -> str | None:
    """What to tell a user who can help it: of a mistake, or of a file that cannot be used."""
    if isinstance(error, ConfigError):
        return str(error)
    # A library that writes files may have an error of its own for a full disk.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (cause.errno in _FULL or cause.filename is not None):
            name = "a file" if cause.filename is None else os.fsdecode(cause.filename)
            if cause.errno in _FULL or name == STANDARD_OUTPUT:
                return str(cannot_write(Path(name), cause))
            if cause is error:
                return f"{name}: {cause.strerror or cause}"
        elif any(os.strerror(number) in str(cause) for number in _FULL):
            first_line = str(cause).partition("\n")[0]
            return f"{first_line}: make room there, then give the same command again"
        cause = cause.__cause__ or cause.__context__
    return None
