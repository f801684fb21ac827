"""Freed memory is kept for the next training step, instead of asking the system for it again."""

import ctypes
import importlib.util
import os

_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8  # names of mallopt(3)


def keep_freed_memory() -> None:
    """Keeps freed memory, on CPUs; to be called before JAX starts threads.

    Elsewhere, or where the user chose otherwise, it changes nothing.

    XLA allocates all temporaries of a step at once. glibc maps so large a block anew every time,
    which costs one page fault per 4 KiB: up to two thirds of the time of a step. One heap that
    grows, and does not shrink by less than 2 GiB, avoids these faults, until small blocks come to
    lie between large ones and the heap passes that size. A heap that never shrinks was seen to grow
    further.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if chosen or "GLIBC_TUNABLES" in os.environ or not _only_cpu():
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library or system
        return
    mallopt(_ARENA_MAX, 1)  # the heaps of further threads hold 64 MiB at most
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def _only_cpu() -> bool:
    """Returns whether JAX will find no accelerator.

    The host threads of an accelerator had better not share one heap.
    """
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms == "cpu"
    return not any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
