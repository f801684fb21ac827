"""Where things computed once are kept for every run of this user.

They only help: where they cannot be kept or read, a run goes on without them.
"""

import functools
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from flax_transformer.errors import UserError

NO_HOME = "there is no home directory"


def default_cache_directory() -> Path | None:
    """Returns `$XDG_CACHE_HOME/flax_transformer`, or ~/.cache/flax_transformer where that is unset.

    Returns None where there is no home directory.
    """
    try:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        return None
    return parent / "flax_transformer"


def name_another_folder(which: str = "another folder") -> str:
    """Returns what a user can do about a place where nothing can be kept."""
    return f"name {which} in the environment variable XDG_CACHE_HOME"


@functools.cache
def say_once(line: str) -> None:
    """Tells the user on stderr, each `line` once; a stderr that cannot be written is no error."""
    with suppress(OSError):
        print(line, file=sys.stderr)


def make_directory(directory: Path) -> None:
    """Makes `directory` and those above it where they are missing; only this user can write there.

    Raises `OSError`.
    """
    for folder in (*reversed(directory.parents), directory):
        folder.mkdir(mode=0o755, exist_ok=True)


def private_directory(directory: Path) -> tuple[Path, bool]:
    """Returns `directory`, open to nobody but this user, and whether it was so before.

    Makes it if it is missing. The path that it returns is without links, so that the folder that
    was checked is the one that is opened. Raises `UserError` where another user can write to the
    folder or exchange it (sshd refuses such key files likewise), and `OSError` where it cannot be
    made.
    """
    directory = Path(os.path.realpath(directory.parent), directory.name)
    folders = [directory, *directory.parents]
    home = Path(os.path.realpath(os.path.expanduser("~")))
    if home in folders:  # what lies above it is the administrator's
        folders = folders[: folders.index(home) + 1]
    for folder in reversed(folders):
        if not os.path.lexists(folder):
            folder.mkdir(mode=0o700 if folder == directory else 0o755, exist_ok=True)
        _refuse_others(folder, is_parent=folder != directory)
    was_private = not stat.S_IMODE(directory.stat().st_mode) & 0o077
    if not was_private:
        directory.chmod(0o700)
    return directory, was_private


def _refuse_others(folder: Path, is_parent: bool) -> None:
    status = folder.lstat()
    user = os.geteuid()
    remedy = f"chmod go-w {folder}" if is_parent else f"rm -r {folder}"
    if stat.S_ISLNK(status.st_mode):
        reason = "is a link"
    elif not stat.S_ISDIR(status.st_mode):
        reason = "is no folder"
    elif status.st_uid != user and not (is_parent and status.st_uid == 0):
        reason, remedy = f"belongs to user {status.st_uid}", f"chown {user} {folder}"
    elif status.st_mode & 0o022 and not (is_parent and status.st_mode & stat.S_ISVTX):
        reason = "can be written to by other users"
    else:
        return
    raise UserError(
        f"{folder} {reason} ({remedy}, or {name_another_folder('a folder of your own')})"
    )
