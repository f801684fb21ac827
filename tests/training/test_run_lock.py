"""One training at a time in a work directory, whatever its file system and its former runs."""

import dataclasses
import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flax_transformer.errors import UserError
from flax_transformer.training import run_lock
from flax_transformer.training.run_lock import RunLock

ROOT = Path(__file__).parents[2]

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from flax_transformer.training.run_lock import RunLock
with RunLock(Path(sys.argv[1])):
    # As a child that tokenises would, it lives on when its parent is killed.
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    print(child.pid, flush=True)
    time.sleep(60)
"""

LONG = 20.0
"""Seconds, as no test would wait."""


def locked(workdir: Path, watch: float = LONG, beat: float = LONG) -> RunLock:
    return RunLock(workdir, beat, watch)


@contextmanager
def seconds_at_most(limit: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < limit


@contextmanager
def renewed(path: Path) -> Iterator[None]:
    """As a run on another host does."""
    done = threading.Event()

    def renew():
        while not done.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def leave_name(workdir: Path, **changes) -> Path:
    """A lock as a run leaves it that was killed, or that goes on elsewhere."""
    holder = dataclasses.replace(run_lock._myself(), token="another", **changes)
    (workdir / "lock").write_text(json.dumps(dataclasses.asdict(holder)))
    return workdir / "lock"


@pytest.fixture
def without_file_locks(monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    holder = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    try:
        with seconds_at_most(2), pytest.raises(UserError) as refusal:
            locked(tmp_path / "run").__enter__()
        assert f"{tmp_path / 'run'} is being trained by process {holder.pid} on host" in str(
            refusal.value
        )
        assert "name another folder with --workdir" in str(refusal.value)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
        os.kill(child, 0)
        with seconds_at_most(2), locked(tmp_path / "run"):
            assert json.loads((tmp_path / "run" / "lock").read_text())["pid"] == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)


def test_lock_of_this_process_is_exclusive_until_it_is_left(tmp_path):
    for _ in range(2):
        with locked(tmp_path) as lock:
            lock.check()
            with pytest.raises(UserError, match=f"process {os.getpid()} "):
                locked(tmp_path).__enter__()
            lock.check()
        assert (tmp_path / "lock").read_bytes() == b""


def test_run_that_goes_on_elsewhere_is_found_by_the_time_of_the_file(tmp_path, capsys):
    path = leave_name(tmp_path, host="far", kernel="another", pid=1234)
    with renewed(path), pytest.raises(UserError, match="process 1234 on host far since"):
        locked(tmp_path, watch=5).__enter__()
    assert f"{path} names process 1234 on host far" in capsys.readouterr().out
    assert json.loads(path.read_text())["token"] == "another"


@pytest.mark.parametrize("content", [None, b"\0" * 300, b"17", b'{"pid": 3}'])
def test_lock_that_nobody_renews_is_taken_over(tmp_path, content):
    path = leave_name(tmp_path, host="far", kernel="another")
    if content:
        path.write_bytes(content)
    start = time.monotonic()
    with locked(tmp_path, watch=0.5) as lock:
        assert time.monotonic() - start >= 0.5
        lock.check()


def test_lock_that_is_left_while_it_is_watched_is_taken_at_once(tmp_path):
    path = leave_name(tmp_path, host="far", kernel="another")
    timer = threading.Timer(0.3, lambda: os.truncate(path, 0))
    timer.start()
    with seconds_at_most(10), locked(tmp_path):
        pass
    timer.join()


@pytest.mark.parametrize("changes", [{"host": "container"}, {"processes": "a container's"}])
def test_killed_run_in_a_container_of_this_host_leaves_no_lock(tmp_path, changes):
    leave_name(tmp_path, **changes)
    with seconds_at_most(2), locked(tmp_path):
        pass


def test_rebooted_host_is_watched(tmp_path, capsys):
    """Another host may have the same name."""
    leave_name(tmp_path, kernel="before")
    with locked(tmp_path, watch=0.2):
        assert "waiting for 0.2 seconds" in capsys.readouterr().out


def test_without_file_locks_a_living_process_holds(tmp_path, without_file_locks):
    refused = pytest.raises(UserError, match=f"process {os.getpid()} ")
    with locked(tmp_path), seconds_at_most(2), refused:
        locked(tmp_path).__enter__()
    with seconds_at_most(2), locked(tmp_path):
        pass


def test_without_file_locks_a_dead_process_does_not_hold(
    tmp_path, without_file_locks, dead_process
):
    for changes in ({"pid": dead_process}, {"started": "1"}):  # or its number is another's by now
        leave_name(tmp_path, **changes)
        with seconds_at_most(2), locked(tmp_path):
            pass


def test_without_file_locks_a_killed_process_that_nobody_awaited_does_not_hold(
    tmp_path, without_file_locks
):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    leave_name(tmp_path, pid=process.pid, started=run_lock._started(process.pid))
    with pytest.raises(UserError):
        locked(tmp_path).__enter__()
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with seconds_at_most(2), locked(tmp_path):
        pass
    process.wait()


def test_without_file_locks_processes_of_a_container_are_watched(
    tmp_path, without_file_locks, dead_process
):
    path = leave_name(tmp_path, processes="a container's", pid=dead_process)
    with renewed(path), pytest.raises(UserError, match=f"process {dead_process}"):
        locked(tmp_path, watch=5).__enter__()


def test_holder_renews_the_file_and_notices_a_successor(tmp_path, without_file_locks, monkeypatch):
    """Two hosts that do not see each other's locks."""
    here = run_lock._myself()
    holder = locked(tmp_path, beat=0.05).__enter__()
    elsewhere = dataclasses.replace(here, host="far", kernel="another", token="other")
    monkeypatch.setattr(run_lock, "_myself", lambda: elsewhere)
    with pytest.raises(UserError, match=f"process {os.getpid()} on host {here.host}"):
        locked(tmp_path, watch=5).__enter__()
    holder._done.set()  # as if it had been stopped for long
    with locked(tmp_path, watch=0.5) as successor:
        with pytest.raises(UserError, match=f"process {os.getpid()} on host far"):
            holder.check()
        holder.__exit__(None, None, None)
        successor.check()
        assert json.loads((tmp_path / "lock").read_text())["host"] == "far"


def test_errors_of_the_file_system_do_not_end_the_holder(tmp_path, monkeypatch):
    def fail(*_):
        beats.append(time.monotonic())
        raise OSError(errno.ESTALE, "Stale file handle")

    beats: list[float] = []
    with locked(tmp_path, beat=0.02) as lock:
        monkeypatch.setattr(os, "utime", fail)
        (tmp_path / "lock").rename(tmp_path / "elsewhere")
        deadline = time.monotonic() + 20
        while len(beats) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(beats) >= 3
        lock.check()


@pytest.mark.parametrize("place", ["folder", "pipe", "link"])
def test_anything_in_the_place_of_the_lock_is_refused_by_name(tmp_path, place):
    path = tmp_path / "lock"
    (tmp_path / "precious").touch()
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(tmp_path / "precious"),
    }[place]()
    with seconds_at_most(2), pytest.raises(UserError, match=f"{path} cannot be written"):
        locked(tmp_path).__enter__()
    assert (tmp_path / "precious").read_text() == ""


def test_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{tmp_path / 'file'} cannot be written: File exists"):
        locked(tmp_path / "file").__enter__()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(UserError, match="lock cannot be written: File too large"):
            locked(tmp_path).__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with locked(tmp_path):  # nothing was left open
        pass

    def open_read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", open_read_only)
    with pytest.raises(UserError, match="lock cannot be written: Read-only file system"):
        locked(tmp_path).__enter__()
