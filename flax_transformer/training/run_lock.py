"""One training at a time in a work directory."""

import errno
import fcntl
import json
import os
import socket
import stat
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

from flax_transformer.errors import UserError
from flax_transformer.files.whole_file import cannot_write
from flax_transformer.parallel.console import Console
from flax_transformer.workdir import LOCK_FILE

_BEAT_SECONDS = 10.0
_WATCH_SECONDS = 35.0
"""More than three beats: fewer may be late on a busy machine."""
_MOST_BYTES = 4096


@dataclass(frozen=True)
class Holder:
    """Who trains in a work directory, as the lock names it."""

    host: str
    kernel: str
    """Names the running kernel, which a file lock is known to at least; empty where unknown."""
    processes: str
    """Names the set of processes among which `pid` is one, such as a container's."""
    pid: int
    started: str
    """When the process began, as its kernel counts; empty where unknown."""
    since: str
    """Local time, for people."""
    token: str
    """Like no other."""

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host} since {self.since}"


class RunLock:
    """While entered, no other process can enter the lock of `workdir`; creates the folder.

    The system drops the lock of a process that ends, however it ends. Where other hosts may not see
    the system's locks, as on some network file systems, it is the file's time that tells who is
    alive: a holder renews it every `beat` seconds, and who finds the name of another host
    watches for `watch` seconds whether that happens. No clocks are compared.

    Raises `UserError` if another process trains there, or if the folder cannot be written.
    """

    def __init__(self, workdir: Path, beat: float = _BEAT_SECONDS, watch: float = _WATCH_SECONDS):
        self._workdir, self._path = workdir, workdir / LOCK_FILE
        self._beat_seconds, self._watch_seconds = beat, watch
        self._me = _myself()
        self._done = threading.Event()

    def __enter__(self) -> "RunLock":
        try:
            self._workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self._workdir, error) from None
        try:
            self._descriptor = _open(self._path)
            try:
                self._acquire()
            except BaseException:
                os.close(self._descriptor)
                raise
        except OSError as error:
            raise cannot_write(self._path, error) from None
        self._beating = threading.Thread(target=self._beat, name="run lock", daemon=True)
        self._beating.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._beating.join(timeout=1.0)
        if self._beating.is_alive():
            return  # the file system does not answer; the end of the process frees the lock
        with suppress(OSError):
            # The file stays: who has just opened it would lock what nobody else finds.
            if self._successor() is None:
                os.ftruncate(self._descriptor, 0)
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # a forked child may share it
        os.close(self._descriptor)

    def check(self) -> None:
        """Raises `UserError` if another process holds the lock by now.

        That can be where this one did not run for longer than `watch`, or where two hosts that do
        not see each other's locks began at the same moment: of these the later one stays.
        """
        with suppress(OSError):
            if successor := self._successor():
                raise self._refusal(successor)

    def _successor(self) -> Holder | None:
        holder = _parse(_content(self._path))
        return None if holder is None or holder.token == self._me.token else holder

    def _acquire(self) -> None:
        supported = self._lock()
        content = os.pread(self._descriptor, _MOST_BYTES, 0)
        holder = _parse(content)
        if content:
            if not supported and holder and _is_alive(holder, self._me):
                raise self._refusal(holder)
            if not _has_ended(holder, self._me, supported):
                self._watch(holder)
        data = json.dumps(asdict(self._me), indent=2).encode() + b"\n"
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))
        os.fsync(self._descriptor)

    def _lock(self) -> bool:
        """Whether the file system has locks, which not all have; `UserError` if another process
        has this one."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            for _ in range(10):  # its holder may not have written its name yet
                if holder := _parse(os.pread(self._descriptor, _MOST_BYTES, 0)):
                    break
                time.sleep(0.05)
            raise self._refusal(holder) from None
        except OSError:
            return False
        return True

    def _watch(self, holder: Holder | None) -> None:
        """Returns once it is clear that nobody renews the file; `UserError` if somebody does."""
        Console.say(
            f"{self._path} names {holder or 'an unknown process'}: waiting for "
            f"{self._watch_seconds:g} seconds to see whether that run still goes on..."
        )
        before, end = _content_and_time(self._path), time.monotonic() + self._watch_seconds
        while time.monotonic() < end:
            time.sleep(min(1.0, self._watch_seconds / 10))
            now = _content_and_time(self._path)
            if not now[0]:
                return  # it has ended
            if now != before:
                raise self._refusal(_parse(now[0]))

    def _beat(self) -> None:
        while not self._done.wait(self._beat_seconds):
            with suppress(OSError):
                os.utime(self._descriptor)

    def _refusal(self, holder: Holder | None) -> UserError:
        return UserError(
            f"{self._workdir} is being trained by {holder or 'another process'}: "
            "wait for it, stop it, or name another folder with --workdir"
        )


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return descriptor


def _content_and_time(path: Path) -> tuple[bytes, int]:
    """Opens the file anew: a network file system answers from its cache otherwise."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, _MOST_BYTES, 0), os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _content(path: Path) -> bytes:
    return _content_and_time(path)[0]


def _parse(content: bytes) -> Holder | None:
    """Whom the file names; None for nobody, and for what a power failure left."""
    try:
        values = json.loads(content.decode())
        holder = Holder(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    whole = all(
        type(value) is (int if name == "pid" else str) for name, value in asdict(holder).items()
    )
    return holder if whole and holder.pid > 0 else None


def _myself() -> Holder:
    return Holder(
        host=socket.gethostname(),
        kernel=_first_line(Path("/proc/sys/kernel/random/boot_id")),
        processes=_link("/proc/self/ns/pid"),
        pid=os.getpid(),
        started=_started(os.getpid()) or "",
        since=datetime.now().astimezone().isoformat(" ", "minutes"),
        token=uuid.uuid4().hex,
    )


def _has_ended(holder: Holder | None, me: Holder, supported: bool) -> bool:
    """Whether the holder, which does not keep the lock from `me`, is known to be no more."""
    if holder is None:
        return False
    if holder.kernel != me.kernel or (not me.kernel and holder.host != me.host):
        return False
    return supported or holder.processes == me.processes


def _is_alive(holder: Holder, me: Holder) -> bool:
    """Whether the holder is a process that runs beside `me`."""
    beside = (holder.host, holder.kernel, holder.processes) == (me.host, me.kernel, me.processes)
    return beside and _started(holder.pid) in (holder.started, "")


def _started(pid: int) -> str | None:
    """When a process began, as its kernel counts; empty if that is unknown, None if it is over."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except (OSError, OverflowError):
        return None
    # The name, in parentheses, may hold anything; the state follows it.
    status = _first_line(Path(f"/proc/{pid}/stat")).rpartition(") ")[2].split()
    if not status:
        return ""
    return None if status[0] in "ZX" else status[19]


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").partition("\n")[0]
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
