"""What is written, what is left alone, and what happens in between."""

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from flax_transformer.errors import UserError
from flax_transformer.files.whole_file import (
    cannot_write,
    output_file,
    remove_left_over,
    whole_file,
    write_whole,
)

WRITERS = [whole_file, output_file]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("writer", WRITERS)
def test_the_file_appears_at_the_end_or_not_at_all(tmp_path, writer):
    path = tmp_path / "file"
    with writer(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    with pytest.raises(KeyboardInterrupt), writer(path) as file:
        file.write(b"second")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"first" and names(tmp_path) == {"file"}


@pytest.mark.parametrize("writer", WRITERS)
def test_files_of_the_user_are_left_alone(tmp_path, writer):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "file.partial").symlink_to(tmp_path / "precious")
    with writer(tmp_path / "file") as file:
        file.write(b"content")
    assert (tmp_path / "precious").read_text() == "kept"
    assert names(tmp_path) == {"precious", "file.partial", "file"}


@pytest.mark.parametrize("writer", WRITERS)
def test_two_writers_of_one_file_do_not_meet(tmp_path, writer):
    with writer(tmp_path / "file") as one, writer(tmp_path / "file") as other:
        one.write(b"one, whole")
        other.write(b"other")
    assert (tmp_path / "file").read_bytes() == b"one, whole"
    assert names(tmp_path) == {"file"}


def test_the_mode_stays(tmp_path):
    path = tmp_path / "secret"
    path.touch(0o600)
    write_whole(path, "text")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "new", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_own_files_replace_links_and_named_ones_follow_them(tmp_path):
    (tmp_path / "target").write_text("before")
    for name in ("own", "named"):
        (tmp_path / name).symlink_to(tmp_path / "target")
    write_whole(tmp_path / "own", "own")
    assert (tmp_path / "target").read_text() == "before" and not (tmp_path / "own").is_symlink()
    with output_file(tmp_path / "named") as file:
        file.write(b"named")
    assert (tmp_path / "target").read_text() == "named" and (tmp_path / "named").is_symlink()
    (tmp_path / "nowhere").symlink_to(tmp_path / "new")
    with output_file(tmp_path / "nowhere") as file:
        file.write(b"new")
    assert (tmp_path / "new").read_text() == "new"


def test_what_is_no_file_is_written_through(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    with output_file(tmp_path / "pipe") as file:
        file.write(b"through")
    reader.join(60)
    assert read == [b"through"] and names(tmp_path) == {"pipe"}
    with output_file(Path("/dev/null")) as file:
        file.write(b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_errors_name_the_file_and_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"absent/file cannot be written: No such file"):
        write_whole(tmp_path / "absent" / "file", "text")
    message = str(cannot_write(Path("file"), OSError(28, "No space left on device")))
    assert message.startswith("file cannot be written: No space left on device: make room")


def test_what_killed_writers_left_goes_once_it_is_old(tmp_path):
    hours_ago = time.time() - 2 * 3600
    old, new = (tmp_path / f"a.{letter * 32}.partial" for letter in "ab")
    for path in (old, new, tmp_path / "of.a.user.partial"):
        path.touch()
    for path in (old, tmp_path / "of.a.user.partial"):
        os.utime(path, (hours_ago, hours_ago))
    (tmp_path / f"link.{'c' * 32}.partial").symlink_to(old)
    remove_left_over(tmp_path)
    assert names(tmp_path) == {new.name, "of.a.user.partial", f"link.{'c' * 32}.partial"}
    remove_left_over(tmp_path / "absent")
