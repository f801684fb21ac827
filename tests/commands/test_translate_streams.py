"""translate.py from and to every kind of stream and file, with a model that needs no training."""

import gzip
import lzma
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flax_transformer.config import Config
from flax_transformer.config.json import save_config

ROOT = Path(__file__).parents[2]

# Without JAX, which takes seconds to load.
SCRIPT = """
import signal, sys, types
from types import SimpleNamespace
from flax_transformer.commands.command_line import run_command

class Shouting:
    def __init__(self, workdir, config, others, risk_metric):
        self.translator = SimpleNamespace(counts=SimpleNamespace(cut_lines=0, untranslated=0))
        self.notes = []

    def search(self, lines, prefixes=None, tags=None, required=None, progress=None):
        if "broken" in lines:
            open("/absent/checkpoint")
        parts = zip(prefixes, tags, lines, map("".join, required))
        texts = [begun + tag + line.upper() + held for begun, tag, line, held in parts]
        return [[SimpleNamespace(text=text, score=0.0)] for text in texts]

module = types.ModuleType("flax_transformer.translation.trained_model")
module.TrainedModel = Shouting
sys.modules["flax_transformer.translation.trained_model"] = module
from flax_transformer.commands import translate
run_command(translate.main)
"""


@pytest.fixture
def start(tmp_path):
    """Starts the command of a shell, in which $TRANSLATE is translate.py with a --workdir."""
    (tmp_path / "run").mkdir()
    save_config(Config(), tmp_path / "run" / "config.json")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = f"{sys.executable} {tmp_path}/script.py --workdir {tmp_path}/run"
    # The folder of a command that a test before ran in this process.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}

    def start(shell: str, **options) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", "-c", shell],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT), "TRANSLATE": command},
            stdin=options.pop("stdin", subprocess.PIPE),
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            **options,
        )

    return start


@pytest.fixture
def run(start):
    def run(shell: str, lines: bytes = b"one\ntwo\n", **options) -> tuple[int, bytes, str]:
        process = start(shell, **options)
        output, errors = process.communicate(lines, timeout=240)
        return process.returncode, output, errors.decode()

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"run", "script.py"}


def test_streams_that_do_not_wait(start):
    source, sink = os.pipe()
    for descriptor in (source, sink):
        os.set_blocking(descriptor, False)
    lines, waiting = os.pipe()
    os.set_blocking(lines, False)
    process = start("exec $TRANSLATE", stdin=lines, stdout=sink)
    os.close(sink), os.close(lines)
    expected = "".join(f"the line with the number {number}\n" for number in range(20_000))

    def write():
        with open(waiting, "wb") as file:
            file.write(expected[:200_005].encode())
            file.flush()
            time.sleep(1)  # in which a read finds nothing
            file.write(expected[200_005:].encode())

    writer = threading.Thread(target=write)
    writer.start()
    os.set_blocking(source, True)  # of the reading end, which nobody shares
    time.sleep(2)  # in which the pipe is full
    with open(source, "rb") as file:
        assert file.read().decode() == expected.upper()
    writer.join()
    assert (process.communicate(timeout=240)[1], process.returncode) == (b"", 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("<&-", "standard input is closed: name a file with --input"),
        (">&-", "standard output is closed: name a file with --output"),
        (">/dev/full", "standard output cannot be written: No space left on device: make room"),
        ("0>file", "standard input cannot be read: Bad file descriptor"),
        ("--input .", "--input . is a folder: name a file"),
        ("--input /dev/zero", "/dev/zero line 1 holds a NUL (byte 0x00), as files do that were"),
        ("--input absent", "--input absent cannot be read: No such file"),
        ("--prefix-file .", "--prefix-file . is a folder: name a file"),
        ("--output /dev/full", "--output /dev/full cannot be written: No space left on device"),
        ("< <(yes | tr -d '\\n')", "standard input line 1 has more than 1,048,576 bytes"),
    ],
)
def test_a_stream_that_cannot_be_used_is_told_in_one_line(run, words, message):
    code, output, errors = run(f"exec $TRANSLATE {words}")
    assert (code, output, errors.count("\n")) == (2, b"", 1)
    assert errors.startswith(f"error: {message}")


def test_compressed_input_is_translated(run, tmp_path):
    (tmp_path / "in").write_bytes(gzip.compress(b"one\ntwo\n") + gzip.compress(b"three"))
    assert run("exec $TRANSLATE --input in") == (0, b"ONE\nTWO\nTHREE\n", "")
    assert run("exec $TRANSLATE", lzma.compress("größe\n".encode("utf-16"))) == (
        0, "GRÖSSE\n".encode(), "",
    )  # fmt: skip
    code, output, errors = run("exec $TRANSLATE", gzip.compress(b"one\ntwo\n")[:-4])
    assert (code, output) == (2, b"ONE\nTWO\n")
    assert errors == (
        "error: standard input is cut short or damaged (it ends too early): fetch or compress it "
        "again\n"
    )


def test_each_line_has_a_prefix(run, tmp_path):
    """Also beyond the lines that are translated at once, and from a compressed file."""
    lines, prefixes = ["".join(f"{a}{i}\n" for i in range(2500)) for a in "xy"]
    (tmp_path / "prefixes").write_bytes(gzip.compress(prefixes.encode()))
    code, output, errors = run("exec $TRANSLATE --prefix-file prefixes", lines.encode())
    assert (code, errors) == (0, "")
    assert output.decode() == "".join(f"y{i}X{i}\n" for i in range(2500))
    for number, difference in ((2499, "more"), (2501, "fewer")):
        text = "a line\n" * number
        code, _, errors = run("exec $TRANSLATE --prefix-file prefixes --output out", text.encode())
        assert (code, errors.count("\n")) == (2, 1)
        assert errors.startswith(f"error: --prefix-file prefixes has {difference} lines than the ")
    assert names(tmp_path) == {"prefixes"}


def test_closed_streams_are_no_matter_where_files_are_named(run, tmp_path):
    (tmp_path / "in").write_text("a line\n")
    done = run("exec $TRANSLATE --input in --output out <&- >&- 2>&-")
    assert done == (0, b"", "")
    assert (tmp_path / "out").read_text() == "A LINE\n"


def test_a_reader_who_has_gone(run):
    done = run("yes | $TRANSLATE | head -1; exit ${PIPESTATUS[1]}")
    assert done == (1, b"Y\n", "")


def test_pipes_and_devices_stay_what_they_are(run, tmp_path):
    os.mkfifo(tmp_path / "in")
    os.mkfifo(tmp_path / "out")
    shell = (
        "cat out & echo text > in & $TRANSLATE --input in --output out; code=$?; wait; exit $code"
    )
    assert run(shell) == (0, b"TEXT\n", "")
    assert run("exec $TRANSLATE --output /dev/null") == (0, b"", "")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert run("exec $TRANSLATE --output /dev/stdout") == (0, b"ONE\nTWO\n", "")
    assert names(tmp_path) == {"in", "out"}


def test_the_target_of_a_link_is_replaced_and_keeps_its_mode(run, tmp_path):
    (tmp_path / "target").touch(0o600)
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "link.partial").write_text("the user's")
    (tmp_path / "target.partial").write_text("the user's")
    assert run("exec $TRANSLATE --output link") == (0, b"", "")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "ONE\nTWO\n"
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o600
    assert names(tmp_path) == {"target", "link", "link.partial", "target.partial"}
    assert (tmp_path / "link.partial").read_text() == "the user's"


def test_two_at_once_leave_one_whole_file(start, tmp_path):
    processes = [start("exec $TRANSLATE --output out") for _ in range(2)]
    for process, word in zip(processes, (b"one\n", b"two\n"), strict=True):
        process.stdin.write(word * 5000)
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=240) == (b"", b"")
        assert process.returncode == 0
    assert (tmp_path / "out").read_text() in ("ONE\n" * 5000, "TWO\n" * 5000)
    assert names(tmp_path) == {"out"}


def test_a_file_may_be_replaced_by_its_translation(run, tmp_path):
    (tmp_path / "text").write_text("a line\n" * 3000)
    assert run("exec $TRANSLATE --input text --output text") == (0, b"", "")
    assert (tmp_path / "text").read_text() == "A LINE\n" * 3000


def test_a_full_disk_leaves_what_was_there(run, tmp_path):
    (tmp_path / "out").write_text("before")

    # Python ignores the signal that comes with it.
    code, _, errors = run("ulimit -f 4; exec $TRANSLATE --output out", b"text\n" * 5000)
    # The note before it is of the compiled programs, which have no room either.
    assert (code, errors.count("\n")) == (2, 2)
    assert errors.endswith("\nerror: --output out cannot be written: File too large\n")
    assert (tmp_path / "out").read_text() == "before"
    assert names(tmp_path) == {"out"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk")
def test_a_small_disk(run, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        code, _, errors = run("exec $TRANSLATE --output disk/out", b"text\n" * 50_000)
        assert (code, errors.count("\n")) == (2, 1)
        assert errors.startswith("error: --output disk/out cannot be written: No space left")
        assert "make room there" in errors
        assert names(disk) == set()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_errors_of_other_files_are_not_laid_on_the_output(run, tmp_path):
    code, _, errors = run("exec $TRANSLATE --output out", b"broken\n")
    assert (code, errors) == (2, "error: /absent/checkpoint: No such file or directory\n")
    assert names(tmp_path) == set()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_no_unfinished_file(start, tmp_path, number, code):
    process = start("exec $TRANSLATE --output out")
    process.stdin.write(b"one\n")
    process.stdin.flush()
    while not any(path.stat().st_size for path in tmp_path.glob("out.*.partial")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.communicate(timeout=240) == (b"", b"")
    assert process.returncode == code
    assert names(tmp_path) == set()


def test_prefixes_and_tags_come_with_the_line_or_with_the_command(run):
    lines = [
        "{}",
        '{"source": "a\\tb", "tag": "<x>", "required": ["y", "z"]}',
        '{"prefix": "", "source": ""}',
    ]
    lines[0] = '{"source": "a", "prefix": "p "}'
    words = "exec $TRANSLATE --prefix 'all ' --tag '<t>'"
    code, output, errors = run(f"{words} --input-format jsonl", "\n".join(lines).encode())
    assert (code, output.decode(), errors) == (0, "p <t>A\nall <x>A\tByz\n<t>\n", "")
    code, output, _ = run(words, b"a\nb\n")
    assert (code, output.decode()) == (0, "all <t>A\nall <t>B\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("the cat", 'standard input line 2 is no JSON object with a "source": write each text as'),
        ('["the cat"]', "standard input line 2 is no JSON object"),
        ('{"prefix": "a"}', "standard input line 2 is no JSON object with"),
        ('{"source": "", "required": "a"}', 'standard input line 2 has a "required" that is no li'),
        ('{"source": "", "required": [3]}', 'standard input line 2 has a "required" that is no te'),
        ('{"source": 3}', 'standard input line 2 has a "source" that is no text'),
        ('{"source": "a", "prefxi": "a"}', 'standard input line 2 has "prefxi", but known are: so'),
    ],
)
def test_what_is_wrong_with_an_object_is_named(run, line, message):
    text = f'{{"source": "a"}}\n{line}\n'
    code, _, errors = run("exec $TRANSLATE --input-format jsonl", text.encode())
    assert code == 2 and errors.startswith(f"error: {message}")
