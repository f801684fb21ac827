"""How the processes of a run find one another before JAX begins.

Where a process is missing, JAX aborts the program after minutes; where its port is taken, it
crashes. So process 0 listens at that port first. Each of the others tells it who it is, and hears
from it once all have come, or what is wrong.
"""

import contextlib
import json
import select
import socket
import time
from dataclasses import dataclass
from typing import IO, Any

from flax_transformer.config.hosts import HostsConfig
from flax_transformer.errors import LostProcessError, UserError

_STRANGER_SECONDS = 5.0
"""Longest that process 0 waits for a newcomer to say who it is."""

_PAUSE_SECONDS = 0.2
"""Between two attempts to reach process 0."""

_SIGN = {"run": "flax_transformer"}
"""Part of every message: tells the processes of a run from whatever else answers at a port."""

_LONGEST = 10_000  # bytes of a message

_MOST_NAMED = 8

Problem = UserError | LostProcessError
"""Why the processes do not meet: their settings do not fit together, or one is missing."""


@dataclass(frozen=True)
class _Process:
    """One of the others, as process 0 sees it."""

    index: int
    connection: socket.socket


def meet(hosts: HostsConfig) -> None:
    """Returns once every process has come.

    Otherwise raises, in every process that has come:
    `LostProcessError`  where some are missing once `hosts.patience` is over.
    `UserError`         where the settings of some do not fit together.
    """
    problem = _gather(hosts) if hosts.index == 0 else _come(hosts)
    if problem is not None:
        raise problem


def _address(hosts: HostsConfig) -> tuple[str, int]:
    host, _, port = (hosts.coordinator or "").rpartition(":")
    return host.strip("[]"), int(port)


def _gather(hosts: HostsConfig) -> Problem | None:
    """Waits, as process 0, for all others and returns the problem, if there is one.

    Tells all that have come what it is.
    """
    waiting: list[_Process] = []
    with _listen(hosts) as listener:
        problem = _wait_for_all(hosts, listener, waiting)
    for process in waiting:
        # A process that has left just now is no error here: JAX will miss it.
        with process.connection, contextlib.suppress(OSError):
            lost = isinstance(problem, LostProcessError)
            _say(process.connection, problem=str(problem) if problem else None, lost=lost)
    return problem


def _listen(hosts: HostsConfig) -> socket.socket:
    """Listens at the port that JAX will take, on all addresses of this host, as JAX does."""
    _, port = _address(hosts)
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen at port {port} of hosts.coordinator {hosts.coordinator}: "
            f"{error.strerror}. Stop what listens there, or choose another port for all processes"
        ) from None


def _wait_for_all(
    hosts: HostsConfig, listener: socket.socket, waiting: list[_Process]
) -> Problem | None:
    deadline = time.monotonic() + hosts.patience
    everyone = set(range(1, hosts.count or 1))
    while missing := sorted(everyone - {process.index for process in waiting}):
        left = deadline - time.monotonic()
        if left <= 0:
            return LostProcessError(
                f"{_enumerate(missing)} of {hosts.count} did not come to {hosts.coordinator} "
                f"within {hosts.patience} s (hosts.patience): start all of them, each with its own "
                "--hosts.index, and check that the network lets them through"
            )
        newcomer = _accept(listener, left)
        _forget_those_who_left(waiting)
        if newcomer:
            process, count = newcomer
            twins = [other for other in waiting if other.index == process.index]
            waiting.append(process)
            if count != hosts.count:
                return UserError(
                    f"process {process.index} has --hosts.count {count}, but process 0 has "
                    f"{hosts.count}: give all the same"
                )
            if twins:
                return UserError(
                    f"two processes have --hosts.index {process.index}: give each its own"
                )
    return None


def _forget_those_who_left(waiting: list[_Process]) -> None:
    for process in list(waiting):
        # They have nothing more to say: if something can be read, it is the end of the connection.
        if select.select([process.connection], [], [], 0)[0]:
            process.connection.close()
            waiting.remove(process)


def _accept(listener: socket.socket, seconds: float) -> tuple[_Process, int] | None:
    """Returns who comes within `seconds`, and how many processes it thinks there are.

    None where nobody comes, or a stranger.
    """
    listener.settimeout(seconds)
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        return None
    connection.settimeout(_STRANGER_SECONDS)
    try:
        with connection.makefile("rb") as file:
            greeting = _hear(file)
        process = _Process(greeting["index"], connection)
        _say(connection)
        return process, greeting["count"]
    except (OSError, LookupError):
        connection.close()
        return None


def _come(hosts: HostsConfig) -> Problem | None:
    """Tells process 0, from any other process, who this one is; returns the problem it names.

    Tries until process 0 can be reached or `hosts.patience` is over.
    """
    deadline = time.monotonic() + hosts.patience
    reason: Exception | None = None
    while (left := deadline - time.monotonic()) > 0:
        try:
            with (
                socket.create_connection(_address(hosts), timeout=left) as connection,
                connection.makefile("rb") as file,
            ):
                _say(connection, index=hosts.index, count=hosts.count)
                _hear(file)
                # Process 0 was reached, and decides how long to wait: its patience may have begun
                # only now.
                connection.settimeout(hosts.patience + _STRANGER_SECONDS)
                answer = _hear(file)
                kind = LostProcessError if answer.get("lost") else UserError
                return kind(answer["problem"]) if answer.get("problem") else None
        except (OSError, UnicodeError) as error:  # the latter where it cannot be a host's name
            reason = error
            time.sleep(_PAUSE_SECONDS)
    return LostProcessError(
        f"process 0 did not answer at {hosts.coordinator} within {hosts.patience} s "
        f"(hosts.patience): {getattr(reason, 'strerror', None) or reason}. Start it there, or "
        "correct --hosts.coordinator"
    )


def _say(connection: socket.socket, **message: Any) -> None:
    connection.sendall(json.dumps(_SIGN | message).encode() + b"\n")


def _hear(file: IO[bytes]) -> dict[str, Any]:
    """Returns the next message; raises `ConnectionError` where there is none."""
    line = file.readline(_LONGEST)
    if not line:
        raise ConnectionError("the connection was closed")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or not _SIGN.items() <= message.items():
        raise ConnectionError("something else answers")
    return message


def _enumerate(indices: list[int]) -> str:
    """Returns the names of the processes: "process 3" or "processes 1, 2 and 5"."""
    *most, last = map(str, indices[:_MOST_NAMED])
    if len(indices) > _MOST_NAMED:
        most, last = [*most, last], f"{len(indices) - _MOST_NAMED} more"
    return f"processes {', '.join(most)} and {last}" if most else f"process {last}"
