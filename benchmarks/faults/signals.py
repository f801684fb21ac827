"""Signals at each phase of a run: how soon it ends, how, and whether it goes on exactly."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults.runs import (
    PATIENCE,
    Whole,
    differing_arrays,
    finish,
    last_step,
    start,
    train_command,
    wait_until,
)

Reached = Callable[[Path, Path, subprocess.Popen], bool]

PHASES: dict[str, Reached] = {
    "importing": lambda workdir, log, process: process.poll() is None,
    "preparing": lambda workdir, log, process: (workdir / "lock").exists(),
    "compiling": lambda workdir, log, process: "Compiling" in log.read_text(),
    "training": lambda workdir, log, process: last_step(workdir) >= 15,
    "validation": lambda workdir, log, process: last_step(workdir) >= 100,
    "scoring": lambda workdir, log, process: "step 200: validation" in log.read_text(),
}
SENT = [
    *((signal.SIGTERM, phase) for phase in PHASES),
    *((signal.SIGINT, phase) for phase in ("compiling", "training", "validation")),
    (signal.SIGHUP, "training"),
    (signal.SIGUSR1, "training"),
]


def send_signals(run: Whole) -> list[dict[str, Any]]:
    """Stops a run by each of SENT, then starts it again."""
    rows, folder = [], run.folder
    for number, phase in SENT:
        name = f"{number.name}_{phase}"
        workdir, log = folder / name, folder / f"{name}.log"
        # A cache of its own, in which there is nothing compiled yet.
        own_cache = folder / f"{name}_cache" if phase == "compiling" else run.cache
        with log.open("w") as output:
            words = train_command(workdir, run.steps)
            process = start(words, own_cache, stdout=output)
            wait_until(process, lambda p=phase, w=workdir, g=log, x=process: PHASES[p](w, g, x))
            process.send_signal(number)
            sent = time.perf_counter()
            ended = finish(process)
            seconds = time.perf_counter() - sent if ended.code is not None else PATIENCE
            again = finish(start(words, run.cache))
        rows.append(
            {
                "signal": number.name,
                "phase": phase,
                "code": ended.code,
                "seconds": round(seconds, 2),
                "traceback": ended.traceback,
                "then": again.code,
                "arrays that differ": differing_arrays(run.workdir, workdir),
            }
        )
        print(rows[-1], flush=True)
    return rows
