"""What a measurement is worth without: when, on what, with which versions and by which command."""

import datetime
import json
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flax_transformer.files.whole_file import write_whole

RECORDS = Path(__file__).resolve().parent / "records"


def machine() -> str:
    """The processor's name and the number of cores."""
    cores, model = 0, platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        cores += line.startswith("processor")
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
    return f"{cores} cores of {model}"


def append_record(
    path: Path, packages: tuple[str, ...], note: str, figures: dict[str, Any]
) -> None:
    """Adds one measurement to the list in `path`, which appears whole or not at all.

    Folders are left out of the command: they say nothing about the figures.
    """
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv]
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in packages},
        "command": shlex.join(["python", *words]),
        "note": note,
        **figures,
    }
    records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([*records, record], indent=1, ensure_ascii=False)
    write_whole(path, text + "\n")
    print(f"recorded in {path}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
