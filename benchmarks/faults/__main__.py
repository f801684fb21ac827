"""A small run under faults: kills, flipped bits, full disks, signals, readers beside it.

    python -m benchmarks.faults
    python -m benchmarks.faults --parts kills --kills 10 --steps 240

Each part prints what became of it, and has a file of its own here; what is promised of each fault
is said in docs/reliability.md. Full disks are file systems in memory, which only root can make;
elsewhere that part is left out.
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.faults.disks import full_disks
from benchmarks.faults.flips import flip_bits, totals
from benchmarks.faults.kills import kill_and_resume
from benchmarks.faults.readers import read_while_training
from benchmarks.faults.runs import Whole, finish, parameters, start, train_command, write_text
from benchmarks.faults.signals import send_signals
from benchmarks.recording import RECORDS, Recorded, append_record

Part = Literal["kills", "flips", "disks", "signals", "readers"]


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Puts a small training run under faults."""

    parts: tuple[Part, ...] = ("kills", "flips", "disks", "signals", "readers")
    kills: int = 20
    flips: int = 1000
    seconds: float = 60
    """How long readers read."""
    steps: int = 200
    """Of each training; signals are sent in its first 200."""
    seed: int = 0
    """Seed of the moments and of the bits."""
    record: Path = RECORDS / "faults.json"


def main(arguments: Arguments) -> None:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        run = Whole(Path(name), arguments.steps)
        write_text(run.folder)
        ended = finish(start(train_command(run.workdir, run.steps), run.cache))
        assert ended.code == 0, ended.errors
        figures["parameter arrays"] = len(parameters(run.workdir))
        for part in arguments.parts:
            print(f"== {part}", flush=True)
            figures[part] = _try(part, arguments, run)
            print(figures[part], flush=True)
    append_record(arguments, ("jax", "orbax-checkpoint"), figures)
    sys.exit(not held(figures))


def _try(part: Part, arguments: Arguments, run: Whole) -> Any:
    match part:
        case "kills":
            differ = kill_and_resume(run, arguments.kills, arguments.seed)
            return {"kills": arguments.kills, "arrays that differ": differ}
        case "flips":
            found = flip_bits(run, arguments.flips, arguments.seed)
            return found | totals(found)
        case "disks":
            if not sys.platform.startswith("linux") or os.geteuid():
                return "not run: only root can make small disks, on Linux"
            return full_disks(run)
        case "signals":
            return send_signals(run)
        case "readers":
            return read_while_training(run, arguments.seconds)


def held(figures: dict[str, Any]) -> bool:
    """Returns whether nothing was lost, nothing was silent, nothing hung."""
    disks, signals = figures.get("disks", []), figures.get("signals", [])
    rows = [*(disks if isinstance(disks, list) else []), *signals]
    readers = figures.get("readers", {})
    return (
        not figures.get("kills", {}).get("arrays that differ")
        and not figures.get("flips", {}).get("not seen")
        and not any(row["traceback"] or row.get("arrays that differ") for row in rows)
        and not any(row.get("then") for row in rows)
        and all(row["code"] not in (None, "hangs") for row in rows)
        and not readers.get("failed loads")
        and not readers.get("failed commands")
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments))
