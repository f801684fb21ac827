"""Folders that appear whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flax_transformer.errors import UserError
from flax_transformer.files.whole_file import cannot_write


def require_no_folder(path: Path) -> None:
    """Raises `UserError` where something lies at `path` that `whole_folder` would not replace."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if os.path.lexists(path):
        raise UserError(f"{path} exists already: name a folder that does not, or remove it")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the name `path` once the body has ended well.

    Until then it lies beside `path` under a name of its own; it is removed where the body fails.
    Raises `UserError` where the folder cannot be made, or where something lies at `path` other than
    an empty folder.
    """
    require_no_folder(path)
    partial = path.absolute().with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise cannot_write(path, error) from None
        yield partial
        require_no_folder(path)  # which another program may have filled meanwhile
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
