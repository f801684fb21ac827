"""How the server does under load: many clients at a time, and one, each asking line by line.

    python -m benchmarks.serve --workdir runs/quickstart
    python -m benchmarks.serve --workdir runs/quickstart --peer ctranslate2

All lines are different, so that an answer that went to another client would be seen: each is
compared with what translate.py makes of the same line. With --peer ctranslate2 the same server has
CTranslate2 do the translating (pip install ctranslate2, no dependency of this project), with the
same weights in float32; the two servers take turns. Nothing else should run on the machine.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.serve.clients import Answers, ask
from benchmarks.serve.servers import CTRANSLATE2, OURS, Running, running
from flax_transformer.config.json import load_config
from flax_transformer.data.corpus import open_corpus
from flax_transformer.errors import require

ROOT = Path(__file__).resolve().parents[2]
TURNS = 10


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Asks the server for the sentences of a training text."""

    workdir: Path
    """Folder of a run."""
    clients: int = 64
    """Clients at a time."""
    requests: int = 10_000
    """Requests of all of them, a line each."""
    alone: int = 500
    """Requests of a single client."""
    peer: Literal["ctranslate2"] | None = None
    """What else translates, after the same server."""
    record: Path = RECORDS / "serve.json"


def different_lines(workdir: Path, count: int) -> list[str]:
    """Returns the first `count` sentences of the training text that differ."""
    pairs = open_corpus(load_config(workdir / "config.json").data).split("train")
    lines: dict[str, None] = {}
    for source, _ in pairs:
        if len(lines) == count:
            break
        lines[source] = None
    require(len(lines) == count, f"there are {len(lines)} different lines: ask for no more")
    return list(lines)


def translated(workdir: Path, lines: Sequence[str]) -> list[str]:
    """Returns what translate.py makes of the lines."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "target"
        source.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        command = [sys.executable, str(ROOT / "translate.py"), "--workdir", str(workdir)]
        subprocess.run([*command, "--input", source, "--output", target], check=True)
        return target.read_text(encoding="utf-8").split("\n")[:-1]


def measure(
    servers: dict[str, Running], lines: Sequence[str], expected: Sequence[str], clients: int
) -> dict[str, dict[str, Any]]:
    """Lets each server answer all lines, in turns of a tenth of them."""
    size = max(1, len(lines) // TURNS)
    found: dict[str, list[Answers]] = {name: [] for name in servers}
    memory: dict[str, list[float]] = {name: [] for name in servers}
    for turn, start in enumerate(range(0, len(lines), size)):
        order = list(servers.items())
        for name, server in order if turn % 2 == 0 else reversed(order):
            found[name].append(ask(server.url, lines[start : start + size], clients))
            memory[name].append(server.resident_mib())
    return {
        name: figures(answers, expected) | {"resident_mib": [round(each) for each in memory[name]]}
        for name, answers in found.items()
    }


def figures(answers: Sequence[Answers], expected: Sequence[str]) -> dict[str, Any]:
    """Returns how fast the answers came, and how many of them are as `expected`."""
    seconds = sorted(each for one in answers for each in one.seconds)
    texts = [text for one in answers for text in one.texts]
    return {
        "requests": len(texts),
        "lost": texts.count(None),
        "as_by_translate": sum(map(str.__eq__, map(str, texts), expected)),
        "requests_per_second": len(texts) / sum(one.wall for one in answers),
        "p50_ms": 1000 * statistics.median(seconds),
        "p95_ms": 1000 * seconds[int(0.95 * len(seconds))],
        "seconds_of_turns": [one.wall for one in answers],
    }


def report(results: dict[str, dict[str, dict[str, Any]]]) -> None:
    for load, of_servers in results.items():
        for name, result in of_servers.items():
            print(
                f"{load:<12}{name:<14}{result['requests_per_second']:>8,.1f} requests/s, "
                f"p50 {result['p50_ms']:,.1f} ms, p95 {result['p95_ms']:,.1f} ms; "
                f"{result['as_by_translate']:,} of {result['requests']:,} as by translate.py, "
                f"{result['lost']} lost; {result['resident_mib'][0]:,} MiB after the first turn, "
                f"{result['resident_mib'][-1]:,} after the last"
            )


def main(arguments: Arguments) -> None:
    load = os.getloadavg()[0]
    lines = different_lines(arguments.workdir, arguments.requests)
    expected = translated(arguments.workdir, lines)
    programs = {"ours": OURS}
    if arguments.peer == "ctranslate2":
        programs["ctranslate2"] = CTRANSLATE2
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(running(program, arguments.workdir))
            for name, program in programs.items()
        }
        measure(servers, lines[:200], expected, arguments.clients)  # which warms up
        results = {
            f"{arguments.clients} clients": measure(servers, lines, expected, arguments.clients),
            "1 client": measure(servers, lines[: arguments.alone], expected, 1),
        }
    report(results)
    found = {"model": arguments.workdir.name, "load_average": load, "results": results}
    packages = ("jax", "jaxlib", "starlette", "uvicorn")
    append_record(arguments, (*packages, *filter(None, [arguments.peer])), found)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
