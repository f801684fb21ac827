"""Several processes that train together, on one host or on many: how they meet and keep in step.

Every process runs the same program over the devices of all. Process 0 alone writes; the others find
what it wrote in the work directory, which therefore lies where every process can see it.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from flax_transformer.config import HostsConfig
from flax_transformer.config_error import ConfigError

_PREPARATION_SECONDS = 24 * 3600
"""Longest that the others wait while process 0 reads and tokenises the corpus."""


def join_hosts(hosts: HostsConfig) -> None:
    """Meets the run's other processes, if there are any; before anything else asks for devices.

    TPU pods, Slurm and Open MPI are found by JAX itself; elsewhere `hosts` says who and where.
    Raises `ConfigError` where the others cannot be met.
    """
    launched = os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("SLURM_NTASKS")
    if hosts.coordinator is None and launched == "1":
        return  # and keep all devices, of which JAX would leave it one
    try:
        jax.distributed.initialize(
            hosts.coordinator,
            hosts.count,
            hosts.index,
            heartbeat_timeout_seconds=hosts.patience,
        )
    except ValueError as error:
        # What JAX says where it knows of no cluster: this is a machine of its own, unless mpirun is
        # one that JAX does not know.
        several = hosts.coordinator is not None or "OMPI_COMM_WORLD_SIZE" in os.environ
        if several or "coordinator_address" not in str(error):
            raise ConfigError(
                f"the processes of this run cannot meet ({error}): say where the first one is with "
                "--hosts.coordinator, --hosts.count and --hosts.index"
            ) from None
    except RuntimeError as error:
        raise ConfigError(f"the processes of this run cannot meet: {error}") from None


def is_first_process() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def from_first_process(function: Callable[[], Any]) -> Any:
    """What `function` returns in the first process, which alone calls it; JSON must know it."""
    if jax.process_count() == 1:
        return function()
    content = json.dumps(function()).encode() if is_first_process() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.frombuffer(content.ljust(size), np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


@contextmanager
def leaving_when_failing() -> Iterator[None]:
    """An unforeseen error in the body ends this process at once, if it is one of several.

    At a regular end JAX has every process wait for the others, which wait for this one: all would
    hang for minutes. So the others end after `HostsConfig.patience`.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception:
        if jax.process_count() == 1:
            raise
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


@contextmanager
def first_process_first() -> Iterator[None]:
    """Process 0 goes through the body before the others, which then find on disk what it left.

    An error in one process ends all of them: where it happened as it is, elsewhere as a
    `ConfigError` that names the process.
    """
    if not is_first_process():
        _meet("process 0 is ready", None)
    problem: BaseException | None = None
    try:
        yield
    except BaseException as error:
        problem = error
    if is_first_process():
        _meet("process 0 is ready", problem)
    _meet("all processes are ready", problem)


def _meet(name: str, problem: BaseException | None) -> None:
    """Waits for all processes; raises `problem`, or a `ConfigError` if another one has one."""
    if jax.process_count() > 1:
        # Not yet a collective on the devices, which would give up long before.
        everyone = set(range(jax.process_count()))
        multihost.sync_global_processes(name, timeout=_PREPARATION_SECONDS, processes=everyone)
        failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(problem is not None)))
        if problem is None and len(failed):
            raise ConfigError(f"process {failed[0]} of this run stopped; its own message says why")
    if problem is not None:
        raise problem
