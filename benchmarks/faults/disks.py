"""A disk that becomes full, at each place that a command writes to; Linux, as root."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.faults.runs import (
    Ended,
    Whole,
    differing_arrays,
    finish,
    last_step,
    start,
    train_command,
    wait_until,
)


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """Mounts a file system in memory at `place`."""
    place.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    subprocess.run(["mount", *options], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> None:
    """Takes all room that is left."""
    with (place / "ballast").open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2


def full_disks(run: Whole) -> list[dict[str, Any]]:
    """Says what becomes of a run whose disk is full from step 15 on, then of the same command with
    room again; its parameters must be those of `run`."""
    rows, folder, steps = [], run.folder, run.steps
    for name, inside in [
        ("work directory", "."), ("checkpoints", "checkpoints"), ("best", "best"),
        ("curves", "tensorboard"), ("scores", "evaluation"),
    ]:  # fmt: skip
        workdir = folder / f"full_{name.replace(' ', '_')}"
        with small_disk(workdir / inside, 64) as place:
            process = start(train_command(workdir, steps), run.cache)
            wait_until(process, lambda workdir=workdir: last_step(workdir) >= 15)
            fill(place)
            ended = finish(process)
            (place / "ballast").unlink()
            again = finish(start(train_command(workdir, steps), run.cache))
            differing = differing_arrays(run.workdir, workdir)
        rows.append(
            _row(name, folder, ended) | {"then": again.code, "arrays that differ": differing}
        )
    return [*rows, _full_cache(run), _full_output(run)]


def _row(name: str, folder: Path, ended: Ended) -> dict[str, Any]:
    said = ended.errors.strip().replace(f"{folder}/", "").splitlines()
    return {
        "place": name,
        "code": "hangs" if ended.code is None else ended.code,
        "lines on standard error": ended.lines_of_error,
        "traceback": ended.traceback,
        "said": said[-1] if said else "",
    }


def _full_cache(run: Whole) -> dict[str, Any]:
    """A cache without any room from the start."""
    workdir = run.folder / "full_cache"
    with small_disk(run.folder / "no_room", 1) as place:
        fill(place)
        ended = finish(start(train_command(workdir, run.steps), place))
        differing = differing_arrays(run.workdir, workdir)
    return _row("caches", run.folder, ended) | {"then": ended.code, "arrays that differ": differing}


def _full_output(run: Whole) -> dict[str, Any]:
    """translate.py --output where there is room for a part of the translations."""
    folder = run.folder
    source = folder / "many_lines"
    source.write_text("the cat sees the dog.\n" * 6000)
    with small_disk(folder / "little_room", 1) as place:
        fill(place)
        with (place / "ballast").open("r+b") as file:
            file.truncate((1 << 20) - (16 << 10))
        output = place / "output"
        words = f"translate.py --workdir {run.workdir} --input {source} --output {output}"
        ended = finish(
            start([*words.split(), "--extra-length", "1", "--beam-size", "1"], run.cache)
        )
        left = sorted(path.name for path in place.iterdir())
    shutil.rmtree(folder / "little_room", ignore_errors=True)
    return _row("--output of translate.py", folder, ended) | {"left behind": left}
