"""How a command ends, whatever becomes of its streams, its disk and its patience."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMMAND = """
import signal, sys
from flax_transformer.commands.command_line import run_command

def main(words):
    exec(words[0], {"sys": sys})

run_command(main)
"""

# What `shell` makes of the descriptors is inherited.
WITH = 'exec "$0" -c "$1" "$2" '


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def run(code: str, redirections: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", WITH + redirections, sys.executable, COMMAND, code],
        env=environment(**variables),
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )


def interrupted(code: str, number: int = signal.SIGINT) -> tuple[int, str, str]:
    """Sends the signal once `code` has printed a line; the code, and what came after the line."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "import os, signal, time\n" + code],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.send_signal(number)
    output, errors = process.communicate(timeout=240)
    return process.returncode, output, errors


FULL = "error: standard output cannot be written: No space left on device: make room there, then"


@pytest.mark.parametrize("code", ["print('text')", "print('text'); sys.exit(0)"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_device(code, unbuffered):
    done = run(code, ">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2
    assert done.stderr == f"{FULL} give the same command again\n"


def test_an_error_before_what_was_printed_could_be_written():
    code = "from flax_transformer.errors import UserError; print('text')\n"
    done = run(code + "raise UserError('no good')", ">/dev/full")
    assert (done.returncode, done.stderr) == (2, "error: no good\n")


def test_an_output_that_is_for_reading():
    done = run("print('text')", "1</dev/null")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: standard output cannot be written: Bad file descriptor\n"


def test_a_reader_who_has_gone():
    lines = "for _ in range(100_000): print('text')"
    done = run(lines, '| head -1; exit "${PIPESTATUS[0]}"')
    # With exec in a pipeline, bash runs it in a process of its own.
    assert (done.returncode, done.stdout, done.stderr) == (1, "text\n", "")
    done = run("sys.stderr.write('gone'); print('text')", '2>&1 | :; exit "${PIPESTATUS[0]}"')
    assert done.returncode in (0, 1) and done.stderr == ""


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", "2</dev/null"])
def test_nobody_listens_to_errors(redirections):
    code = "print('text'); print('lost', file=sys.stderr); sys.stderr.flush()"
    done = run(code, redirections)
    assert (done.returncode, done.stdout) == (0, "text\n")
    assert run("raise RuntimeError", redirections).returncode == 1
    assert run("open('/absent/file')", redirections).returncode == 2


def test_closed_streams_leave_no_number_for_the_files_of_the_program(tmp_path):
    code = f"file = open({str(tmp_path / 'file')!r}, 'w'); print('text'); "
    code += "print('lost', file=sys.stderr); file.write(str(file.fileno())); file.close()"
    done = run(code, "<&- >&- 2>&-")
    assert done.returncode == 0
    assert int((tmp_path / "file").read_text()) > 2


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict"])
def test_characters_that_cannot_be_shown(encoding):
    code = "print('œuf', flush=True); print('中', file=sys.stderr)"
    done = run(code, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u0153uf\n", "\\u4e2d\n")


def test_an_output_that_does_not_wait_gets_everything():
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    code = "for number in range(30_000): print('a line of text', number)\n"
    code += "sys.stdout.flush(); sys.stdout.buffer.write(b'x' * 300_000)"
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, code],
        env=environment(),
        stdout=sink,
        stderr=subprocess.PIPE,
    )
    time.sleep(1)  # until the pipe is full
    assert not os.get_blocking(sink)  # others share it
    os.close(sink)
    with open(source, "rb") as file:
        content = file.read()
    _, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (0, b"")
    expected = "".join(f"a line of text {number}\n" for number in range(30_000)).encode()
    assert content == expected + b"x" * 300_000


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("open('/absent/file')", "/absent/file: No such file or directory"),
        (
            "raise OSError(28, 'No space left on device', '/a/b')",
            "/a/b cannot be written: No space",
        ),
        ("raise OSError(28, 'No space left on device')", "a file cannot be written: No space left"),
        (
            "raise OSError(122, 'Disk quota exceeded')",
            "a file cannot be written: Disk quota exceeded",
        ),
        (
            "try: raise OSError(28, 'No space left on device', '/a/b')\n"
            "except OSError as error: raise ValueError('in a library') from error",
            "/a/b cannot be written: No space left on device: make room there",
        ),
        (
            'raise ValueError(\'Error writing "x" at "/a/b": No space left on device\\nmore\')',
            "/a/b cannot be written: No space left on device: make room there, then give the same",
        ),
    ],
)
def test_files_that_cannot_be_used_are_told_in_one_line(code, message):
    done = run(code)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "code",
    [
        "raise RuntimeError('a defect')",
        "raise BrokenPipeError(32, 'a defect of a pipe')",
        "try: open('/absent/file')\nexcept OSError: raise KeyError('a defect')",
    ],
)
def test_defects_keep_their_traceback(code):
    done = run(code)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "a defect" in done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_end_a_command_in_order(number, code):
    waiting = "try:\n  print('ready', flush=True); time.sleep(240)\nfinally: print('in order')"
    assert interrupted(waiting, number) == (code, "in order\n", "")


# What libraries do with an interruption that comes while they run.
LOSSES = {
    "in a callback of the garbage collector": """
import gc
def collect(phase, information):
    print(phase, flush=True)
    deadline = time.monotonic() + 1
    while "start" in phase and time.monotonic() < deadline: pass
gc.callbacks.append(collect)
gc.collect()
gc.callbacks.clear()
""",
    "in a destructor": """
class Slow:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(240)
Slow()
""",
    "printed by C code": """
try:
    print("ready", flush=True)
    time.sleep(240)
except BaseException as error:
    sys.excepthook(type(error), error, error.__traceback__)
""",
    "swallowed": """
try:
    print("ready", flush=True)
    time.sleep(240)
except BaseException:
    pass
""",
    "turned into another error": """
try:
    print("ready", flush=True)
    time.sleep(240)
except BaseException:
    raise ImportError("while an extension was loaded")
""",
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("then", ["time.sleep(240)", ""])
def test_a_lost_interruption_still_ends_the_command(loss, then):
    start = time.monotonic()
    code, _, errors = interrupted(LOSSES[loss] + then)
    assert (code, errors) == (130, "")
    assert time.monotonic() - start < 120


@pytest.mark.parametrize("seconds", [0.2, 240])
def test_nothing_is_raised_while_a_module_is_loaded(tmp_path, seconds):
    """Extensions, such as those of JAX, crash on it."""
    (tmp_path / "slow.py").write_text(f"""
import time
try:
    print("ready", flush=True)
    time.sleep({seconds})
except BaseException:
    print("crashed", flush=True)
""")
    code = f"sys.path.insert(0, {str(tmp_path)!r})\n"
    code += "try:\n  import slow; time.sleep(240)\nfinally: print('in order')"
    start = time.monotonic()
    expected = "in order\n" if seconds < 1 else ""
    assert interrupted(code) == (130, expected, "")
    assert time.monotonic() - start < 120


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "translate.py"])
def test_ctrl_c_is_silent_while_a_command_loads_its_modules(tmp_path, script):
    (tmp_path / "tyro.py").write_text("import time; print('ready', flush=True); time.sleep(240)")
    usual = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            usual + "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])",
            ROOT / script,
        ],
        env={**environment(), "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=240) == (b"", b"")
    assert process.returncode == 130


def test_other_handlers_come_first_and_ours_come_back():
    code, output, errors = interrupted(
        "before = signal.signal(signal.SIGINT, lambda *_: print('handled'))\n"
        "print('ready', flush=True); time.sleep(1)\n"
        "signal.signal(signal.SIGINT, before)\n"
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(240)"
    )
    assert (code, output, errors) == (130, "handled\n", "")


def test_ignored_signals_stay_ignored():
    done = run("import signal; print(signal.getsignal(2), signal.getsignal(1))", "")
    assert "SIG_IGN" not in done.stdout
    ignoring = "trap '' HUP INT TERM; "
    code = "import os, signal\nfor number in (1, 2, 15): os.kill(os.getpid(), number)\nprint('on')"
    done = subprocess.run(
        ["bash", "-c", ignoring + WITH, sys.executable, COMMAND, code],
        env=environment(),
        capture_output=True,
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (0, b"on\n")


def test_ctrl_c_does_not_wait_for_a_slow_reader():
    source, sink = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "while True: print('text' * 1000)"],
        env=environment(),
        stdout=sink,
        stderr=subprocess.PIPE,
    )
    os.close(sink)
    with suppress(BlockingIOError):
        os.read(source, 1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"")
    os.close(source)
