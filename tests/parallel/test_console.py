"""What a run says never ends it, whatever becomes of standard output and standard error."""

import io
import os
import sys

import pytest

from flax_transformer.parallel.console import Console

VALUES = {"loss": 1.0, "accuracy": 0.5, "tokens": 10.0}


def pipe_without_a_reader():
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "w", encoding="utf-8")


def full_disk():
    return open("/dev/full", "w", encoding="utf-8")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


def missing():
    return None


FAULTS = [pipe_without_a_reader, full_disk, closed, missing]


def run_through() -> None:
    """All that a run does with its console."""
    Console.say("work directory: here")
    console = Console(10, 0)
    for step in range(3):
        console.step()
        console.log(step, VALUES)
        console.say("caf\u00e9 " * 3000)
    console.warn("something is missing")
    console.close()
    print("the report")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # as Python does at its end


@pytest.mark.parametrize("fault", FAULTS)
def test_run_outlives_standard_output_and_says_so_once(monkeypatch, capsys, fault):
    stream = fault()
    monkeypatch.setattr(sys, "stdout", stream)
    run_through()
    errors = capsys.readouterr().err
    assert errors.count("standard output cannot be written") == (stream is not None)
    assert "warning: something is missing\n" in errors
    if stream:
        stream.close()  # nothing waits in it: an error here would be shown when Python ends


@pytest.mark.parametrize("fault", FAULTS)
def test_run_outlives_standard_error(monkeypatch, capsys, fault):
    stream = fault()
    monkeypatch.setattr(sys, "stderr", stream)
    run_through()
    assert capsys.readouterr().out.endswith("the report\n")
    if stream:
        stream.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_progress_bar_on_a_terminal_that_fails_is_outlived(monkeypatch, capsys, fault):
    stream = fault()
    if stream:
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    run_through()
    assert capsys.readouterr().out.endswith("the report\n")
    if stream:
        stream.close()


def test_characters_that_the_terminal_lacks_are_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Console.say("caf\u00e9")
    assert raw.getvalue() == b"caf\\xe9\n"
