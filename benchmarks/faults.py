"""A small run under faults: kills, flipped bits, full disks, signals, readers beside it.

    python benchmarks/faults.py

Each part prints what became of it; all figures go to benchmarks/records/faults.json. What is
promised of each fault is said in docs/reliability.md. Full disks are file systems in memory, which
only root can make; elsewhere that part is left out.
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from fault_disk import full_disks
from fault_flips import flip_bits, totals
from fault_readers import read_while_training
from fault_runs import finish, parameters, start, train_command, write_text
from fault_signals import send_signals
from kill_and_resume import kill_and_resume
from recording import RECORDS, append_record

STEPS = 200

Part = Literal["kills", "flips", "disks", "signals", "readers"]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Puts a small training run under faults."""

    parts: tuple[Part, ...] = ("kills", "flips", "disks", "signals", "readers")
    kills: int = 20
    flips: int = 1000
    seconds: float = 60
    """How long readers read."""
    seed: int = 0
    """Seed of the moments and of the bits."""
    note: str = ""
    """Written into the record."""


def main(arguments: Arguments) -> None:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, cache = folder / "whole", folder / "cache"
        write_text(folder)
        ended = finish(start(train_command(whole, STEPS), cache))
        assert ended.code == 0, ended.errors
        figures["parameter arrays"] = len(parameters(whole))
        for part in arguments.parts:
            print(f"== {part}", flush=True)
            figures[part] = _run(part, arguments, folder, whole, cache)
            print(figures[part], flush=True)
    append_record(RECORDS / "faults.json", ("jax", "orbax-checkpoint"), arguments.note, figures)
    sys.exit(not _held(figures))


def _run(part: Part, arguments: Arguments, folder: Path, whole: Path, cache: Path) -> Any:
    match part:
        case "kills":
            differ = kill_and_resume(folder, whole, cache, STEPS, arguments.kills, arguments.seed)
            return {"kills": arguments.kills, "arrays that differ": differ}
        case "flips":
            found = flip_bits(whole, cache, arguments.flips, arguments.seed)
            return found | totals(found)
        case "disks":
            if not sys.platform.startswith("linux") or os.geteuid():
                return "not run: only root can make small disks, on Linux"
            return full_disks(folder, whole, cache, STEPS)
        case "signals":
            return send_signals(folder, whole, cache, STEPS)
        case "readers":
            return read_while_training(folder, cache, arguments.seconds)


def _held(figures: dict[str, Any]) -> bool:
    """Whether nothing was lost, nothing was silent, nothing hung."""
    disks, signals = figures.get("disks", []), figures.get("signals", [])
    rows = [*(disks if isinstance(disks, list) else []), *signals]
    readers = figures.get("readers", {})
    return (
        not figures.get("kills", {}).get("arrays that differ")
        and not figures.get("flips", {}).get("not seen")
        and not any(row["traceback"] or row.get("arrays that differ") for row in rows)
        and all(row["code"] not in (None, "hangs") for row in rows)
        and not readers.get("failed loads")
        and not readers.get("failed commands")
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments))
