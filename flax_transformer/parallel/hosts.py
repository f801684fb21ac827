"""Several processes that train together, on one host or on many: how they meet and keep in step.

Every process runs the same program over the devices of all. Process 0 alone writes; the others find
what it wrote in the work directory, which therefore lies where every process can see it.
"""

import contextlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from flax_transformer.config.hosts import HostsConfig
from flax_transformer.errors import FlaxTransformerError, LostProcessError, UserError
from flax_transformer.parallel.rendezvous import meet
from flax_transformer.runtime.exit_codes import exit_code

_JOINING_SECONDS = 300
"""Longest that JAX may take to connect processes that have met, or those of a cluster."""

_LEAVING_SECONDS = 10
"""Longest that a process with an error waits for the others to end with it."""

_PREPARATION_SECONDS = 24 * 3600
"""Longest that the others wait while process 0 reads and tokenises the corpus."""


def join_hosts(hosts: HostsConfig) -> None:
    """Meets the run's other processes, if any; to be called before anything asks for devices.

    TPU pods, Slurm and Open MPI are found by JAX itself; elsewhere `hosts` says who and where.
    Raises `LostProcessError` where the others cannot be met, and `UserError` where the settings
    of the processes do not fit together. Ctrl-C meanwhile ends the program.
    """
    launched = os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("SLURM_NTASKS")
    if hosts.coordinator is None and launched == "1":
        return  # and keep all devices, of which JAX would leave it one
    try:
        if hosts.coordinator is not None:
            _heeding_interrupts(lambda: meet(hosts))
        _join(hosts)
    except KeyboardInterrupt:
        _leave(130)


def _join(hosts: HostsConfig) -> None:
    def initialize() -> None:
        jax.distributed.initialize(
            hosts.coordinator,
            hosts.count,
            hosts.index,
            # JAX aborts the program then, which must not come before we give up.
            initialization_timeout=2 * _JOINING_SECONDS,
            heartbeat_timeout_seconds=hosts.patience,
        )

    try:
        _heeding_interrupts(initialize, _JOINING_SECONDS)
        # The processes tell each other what devices they have, for which JAX waits too.
        _heeding_interrupts(jax.devices)
    except ValueError as error:
        # JAX says coordinator_address where it knows of no cluster: then this process runs alone,
        # unless it was started by an mpirun that JAX does not know.
        several = hosts.coordinator is not None or "OMPI_COMM_WORLD_SIZE" in os.environ
        if several or "coordinator_address" not in str(error):
            raise UserError(
                f"the processes of this run cannot meet ({error}): say where the first one is with "
                "--hosts.coordinator, --hosts.count and --hosts.index"
            ) from None
    except TimeoutError:
        where = f" at {hosts.coordinator}" if hosts.coordinator else ""
        _give_up(
            f"JAX did not connect the processes of this run{where} within {_JOINING_SECONDS} s: "
            "one of them has ended, or the network does not let them through"
        )
    except RuntimeError as error:
        _give_up(f"the processes of this run cannot meet: {error}")


def _give_up(problem: str) -> NoReturn:
    """Raises `LostProcessError`.

    Where JAX would first wait for the others, it prints the error and ends this process at once.
    """
    if not jax.distributed.is_initialized():
        raise LostProcessError(problem)
    print(f"error: {problem}", file=sys.stderr)
    _leave(2)


def _heeding_interrupts(function: Callable[[], object], seconds: float | None = None) -> None:
    """Calls `function`, and is interrupted by Ctrl-C even where JAX waits and hears nothing.

    Raises `TimeoutError` where that takes more than `seconds`. Either way `function` goes on, in a
    thread of its own, until the program ends.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            function()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    done.result(seconds)


def _leave(code: int) -> NoReturn:
    """Ends this process now. At a regular end JAX would wait for the others."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def is_first_process() -> bool:
    """Returns whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def from_first_process(function: Callable[[], Any]) -> Any:
    """Returns what `function` returns in the first process, which alone calls it.

    JSON must be able to hold it.
    """
    if jax.process_count() == 1:
        return function()
    content = json.dumps(function()).encode() if is_first_process() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.frombuffer(content.ljust(size), np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


@contextmanager
def leaving_when_failing() -> Iterator[None]:
    """Ends this process on an error in the body, or Ctrl-C, without waiting long for the others.

    Where there is only one process, the error is raised as usual. At a regular end JAX has every
    process wait for the others, which wait for this one: all would hang for minutes. This way the
    others end after `HostsConfig.patience`.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, KeyboardInterrupt):
            _leave(130)
        code = exit_code(error)
        if code is None:
            traceback.print_exc()
        elif isinstance(error, FlaxTransformerError):
            # Most of these are found by all, which end best together.
            with contextlib.suppress(Exception):
                _heeding_interrupts(jax.distributed.shutdown, _LEAVING_SECONDS)
        _leave(1 if code is None else code)


@contextmanager
def first_process_first() -> Iterator[None]:
    """Runs the body in process 0 before the others, which then find on disk what it left.

    An error in one process ends all of them: the process where it happened raises it as it is,
    the others a `LostProcessError` that names that process. Ctrl-C waits for nobody.
    """
    if not is_first_process():
        _meet("process 0 is ready", None)
    problem: BaseException | None = None
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        problem = error
    if is_first_process():
        _meet("process 0 is ready", problem)
    _meet("all processes are ready", problem)


def _meet(name: str, problem: BaseException | None) -> None:
    """Waits for all processes; raises `problem`, or `LostProcessError` if another one has one."""
    if jax.process_count() > 1:
        # Not yet a collective on the devices, which would give up long before.
        everyone = set(range(jax.process_count()))
        _heeding_interrupts(
            lambda: multihost.sync_global_processes(
                name, timeout=_PREPARATION_SECONDS, processes=everyone
            )
        )
        failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(problem is not None)))
        if problem is None and len(failed):
            raise LostProcessError(
                f"process {failed[0]} of this run stopped; its own message says why"
            )
    if problem is not None:
        raise problem
