"""Servers as processes of their own."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

OURS = ("-c", "from flax_transformer.commands.main import main; main()", "serve")
CTRANSLATE2 = ("-m", "benchmarks.serve.ctranslate2")

_POLLED_SECONDS = 0.2


@dataclass
class Running:
    """A server that answers at `url`."""

    url: str
    process: subprocess.Popen

    def resident_mib(self) -> float:
        """Returns the memory that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024


@contextmanager
def running(program: Sequence[str], workdir: Path, *flags: str) -> Iterator[Running]:
    """Starts a server, and stops it as a user would; whatever it is lost by is raised."""
    command = [sys.executable, *program, "--workdir", str(workdir), "--port", "0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        found = re.match(r"listening on (http\S+);", first)
        if found is None:
            raise RuntimeError(f"{' '.join(command)} does not listen: {first}")
        while not _is_ready(found[1]):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}")
            time.sleep(_POLLED_SECONDS)
        yield Running(found[1], process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        if process.returncode != 128 + signal.SIGTERM:
            raise RuntimeError(f"the server ended with code {process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health") as answer:
            return json.loads(answer.read())["status"] == "ready"
    except OSError:
        return False
