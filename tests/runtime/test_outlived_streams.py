"""A program whose standard streams fail goes on, and ends without a complaint."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TALK = """
import sys
from pathlib import Path
from flax_transformer.runtime.outlived_streams import survive_stream_errors
survive_stream_errors()
for number in range(3000):
    print("a line", number, flush=number % 7 == 0)
Path(sys.argv[1]).write_text("reached the end")
"""


def talk(marker: Path, redirection: str, program: str = TALK) -> subprocess.CompletedProcess:
    """`program`, started by a shell that redirects its output so."""
    command = f'"{sys.executable}" -X dev -c "$PROGRAM" "{marker}" {redirection}'
    environment = os.environ | {"PROGRAM": program, "PYTHONIOENCODING": ""}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "redirection, reason",
    [("| true", "Broken pipe"), (">/dev/full", "No space left on device")],
)
def test_output_without_a_reader_is_told_once_and_outlived(tmp_path, redirection, reason):
    ended = talk(tmp_path / "marker", redirection)
    assert (tmp_path / "marker").read_text() == "reached the end"
    assert ended.returncode == 0
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert f"warning: standard output cannot be written: {reason}" in ended.stderr


@pytest.mark.parametrize("redirection", ["2>&1 | true", "2>/dev/full"])
def test_streams_closed_or_both_broken_are_outlived(tmp_path, redirection):
    ended = talk(
        tmp_path / "marker",
        redirection,
        TALK.replace("print(", "print(file=sys.stderr)\n    print("),
    )
    assert (tmp_path / "marker").read_text() == "reached the end"
    assert ended.returncode == 0


def test_output_goes_on_where_the_disk_has_room_again(tmp_path):
    """By a limit on the size of files, since a disk cannot be filled here."""
    program = """
import resource, sys
from flax_transformer.runtime.outlived_streams import survive_stream_errors
survive_stream_errors()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
print("lost for want of room", flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print("after", flush=True)
"""
    ended = talk(tmp_path / "marker", f">{tmp_path / 'output'}", program)
    assert ended.returncode == 0 and "File too large" in ended.stderr
    assert (tmp_path / "output").read_text().endswith("after\n")


def test_characters_that_the_stream_lacks_are_escaped(tmp_path):
    program = """
import sys
from flax_transformer.runtime.outlived_streams import survive_stream_errors
sys.stdout.reconfigure(encoding="ascii", errors="strict")
survive_stream_errors()
print("caf\\u00e9")
"""
    ended = talk(tmp_path / "marker", "", program)
    assert ended.stdout == "caf\\xe9\n" and ended.returncode == 0
