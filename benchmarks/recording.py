"""Records: one schema for everything that is measured.

A record is a JSON file that holds a list of measurements. Each has exactly these entries:

    date      YYYY-MM-DD
    machine   processor, cores, instruction_sets (null: not noted), gpu (null: none, or not noted)
    versions  of Python and of the packages that matter
    command   that measures it, with folders left out: they say nothing about the figures
    note      what a reader should know, such as other load on the machine
    figures   what was measured; each script has its own
"""

import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flax_transformer.files.whole_file import write_whole

RECORDS = Path(__file__).resolve().parent / "records"

ENTRIES = ("date", "machine", "versions", "command", "note", "figures")

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16", "sve")
"""Those that decide how fast matrix products are; the last two are of ARM."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Arguments of every script that appends to a record."""

    note: str = ""
    """What a reader should know, such as other load on the machine."""
    record: Path
    """File that the measurement is appended to."""


def machine() -> dict[str, Any]:
    """Describes the processor and, where JAX computes on one, the accelerator."""
    cores, model, features = 0, platform.processor(), None
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        name, _, value = line.partition(":")
        match name.strip().lower():
            case "processor":
                cores += 1
            case "model name":
                model = value.strip()
            case "flags" | "features":
                features = value.split()
    return {
        "processor": model,
        "cores": cores or os.cpu_count(),
        "instruction_sets": None
        if features is None
        else [name for name in INSTRUCTION_SETS if name in features],
        "gpu": _gpu(),
    }


def measurement(
    packages: Iterable[str], note: str, figures: dict[str, Any], command: str | None = None
) -> dict[str, Any]:
    """Makes one entry of a record.

    packages: whose versions matter
    command:  where another one than this process's own gives the figures
    """
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": {"python": platform.python_version()}
        | {package: _version(package) for package in packages},
        "command": command or this_command(),
        "note": note,
        "figures": figures,
    }


def read_record(path: Path) -> list[dict[str, Any]]:
    """Reads all measurements of a record; none where there is no file yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_record(path: Path, measurements: list[dict[str, Any]]) -> None:
    """Writes a record, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(measurements, indent=1, ensure_ascii=False) + "\n")
    print(f"recorded in {path}")


def append_record(arguments: Recorded, packages: Iterable[str], figures: dict[str, Any]) -> None:
    """Adds one measurement to the record that `arguments` names."""
    new = measurement(packages, arguments.note, figures)
    write_record(arguments.record, [*read_record(arguments.record), new])


def this_command() -> str:
    """The words that started this process, such as python -m benchmarks.decode."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.orig_argv[1:]]
    return shlex.join(["python", *words])


def _gpu() -> str | None:
    """Only of a JAX that is in use: to load it would take longer than some measurements."""
    jax = sys.modules.get("jax")
    if jax is None or jax.default_backend() == "cpu":
        return None
    devices = jax.local_devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
