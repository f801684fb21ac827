"""Metrics are kept as well as the disk allows, and never stop or hang a run."""

import builtins
import json
import os
import resource
import struct
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from flax_transformer.errors import UserError
from flax_transformer.training import appended_file, metrics_file
from flax_transformer.training.appended_file import AppendedFile
from flax_transformer.training.metrics import MetricsWriter, RunningMeans, read_metrics


def lines_of(*steps: int) -> list[dict]:
    return [{"step": step, "kind": "train", "loss": 1.0} for step in steps]


def as_text(lines: list[dict]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def steps(workdir) -> list[int]:
    return [line["step"] for line in read_metrics(workdir)]


@contextmanager
def no_file_longer_than(size: int):
    """A full disk: whoever writes beyond `size` gets in what fits, and then an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def events_of(workdir) -> list[Event]:
    """What the event files hold, in the order in which TensorBoard reads them."""
    events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            length, checksum = struct.unpack("<QI", data[:12])
            assert checksum == masked_crc32c(data[:8])
            record, (checksum,) = (
                data[12 : 12 + length],
                struct.unpack("<I", data[12 + length :][:4]),
            )
            assert checksum == masked_crc32c(record)
            events.append(Event.FromString(record))
            data = data[16 + length :]
    return events


def points_of(workdir) -> list[tuple[int, str, float]]:
    return [
        (event.step, value.tag, value.simple_value)
        for event in events_of(workdir)
        for value in event.summary.value
    ]


def test_metrics_of_later_steps_go_and_are_written_again(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text(as_text(lines_of(1, 2, 3)))
    writer = MetricsWriter(tmp_path, 1)
    assert steps(tmp_path) == [1]
    writer.write(2, "train", {"loss": 0.5})
    writer.close()
    assert read_metrics(tmp_path) == [*lines_of(1), {"step": 2, "kind": "train", "loss": 0.5}]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "damage",
    [
        b'{"step": 3, "ki',
        b"\0" * 9,
        b"\0" * 9 + b"\n",
        b"[1]\n",
        b"17\n",
        b'{"kind": "train"}\n',
        b'{"step": "3", "kind": "train"}\n',
        b'{"step": true, "kind": "train"}\n',
        b'{"step": 3}\n',
        b'{"step": 3, "kind": "caf\xe9"}\n',
        b'{"step": ' + b"1" * 5000 + b', "kind": "train"}\n',
        b"[" * 200_000 + b"\n",
        b"x" * (3 << 20) + b"\n",
    ],
    ids=lambda damage: repr(damage[:20]),
)
def test_lines_that_cannot_be_read_are_named_and_kept_aside(tmp_path, capsys, damage):
    path = tmp_path / "metrics.jsonl"
    torn = b"" if damage.endswith(b"\n") else b"\n"
    before = as_text(lines_of(1, 2)).encode() + damage
    if torn:
        path.write_bytes(before)
    else:
        before += as_text(lines_of(4)).encode()
        path.write_bytes(before)
    MetricsWriter(tmp_path, 4).close()
    readable = as_text(lines_of(1, 2, *([] if torn else [4])))
    assert path.read_text() == readable
    assert (tmp_path / "metrics.damaged-1.jsonl").read_bytes() == before
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and f"{path}: lines that cannot be read: 1 (number 3)" in errors
    MetricsWriter(tmp_path, 4).close()
    assert capsys.readouterr().err == "" and path.read_text() == readable


def test_many_lines_that_cannot_be_read_are_counted(tmp_path, capsys):
    for number in (1, 2):
        (tmp_path / "metrics.jsonl").write_text(as_text(lines_of(1)) + "?\n" * 1200)
        MetricsWriter(tmp_path, 4).close()
        errors = capsys.readouterr().err
        assert "1,200 (number 2, 3, 4, 5, 6 and 1,195 more)" in errors
        assert (tmp_path / f"metrics.damaged-{number}.jsonl").exists()


def test_readable_lines_are_never_lost(tmp_path, capsys):
    """What follows NULs, a byte order mark or a blank line, and a last line without its end."""
    first, second, last = as_text(lines_of(1, 2, 3)).encode().splitlines(keepends=True)
    text = b"\xef\xbb\xbf" + first + b"\0\0\0" + second + b"\r\n\n" + last.rstrip()
    (tmp_path / "metrics.jsonl").write_bytes(text)
    assert steps(tmp_path) == [1, 2, 3]
    writer = MetricsWriter(tmp_path, 3)
    writer.write(4, "train", {"loss": 1.0})
    writer.close()
    assert read_metrics(tmp_path) == lines_of(1, 2, 3, 4)
    assert capsys.readouterr().err == ""


def test_file_system_without_links_gets_a_copy(tmp_path, monkeypatch):
    def link(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(metrics_file.os, "link", link)
    for _ in range(2):
        (tmp_path / "metrics.jsonl").write_text("?\n" + as_text(lines_of(1)))
        MetricsWriter(tmp_path, 1).close()
    for number in (1, 2):
        kept = (tmp_path / f"metrics.damaged-{number}.jsonl").read_text()
        assert kept == "?\n" + as_text(lines_of(1))


def test_without_room_later_steps_go_and_damage_stays(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text(as_text(lines_of(1, 2, 3)))
    with no_file_longer_than(0):
        MetricsWriter(tmp_path, 1).close()
    assert steps(tmp_path) == [1] and capsys.readouterr().err == ""
    path.write_text(as_text(lines_of(1)) + "?\n")
    with no_file_longer_than(0):
        MetricsWriter(tmp_path, 1).close()
    assert path.read_text() == as_text(lines_of(1)) + "?\n"
    assert f"{path} could not be put in order (File too large)" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("fits", [0, 10, 40])
def test_full_disk_costs_a_warning_and_room_brings_all_lines_and_curves(tmp_path, capsys, fits):
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, "train", {"loss": 1.0})
    with no_file_longer_than((tmp_path / "metrics.jsonl").stat().st_size + fits):
        for step in (2, 3, 4):
            writer.write(step, "train", {"loss": 1.0})
            assert (tmp_path / "metrics.jsonl").read_text() == as_text(lines_of(1))
    errors = capsys.readouterr().err
    assert f"{tmp_path / 'metrics.jsonl'} cannot be written: File too large" in errors
    assert errors.count("\n") == 2, "one of the lines, one of the curves"
    writer.write(5, "train", {"loss": 1.0})
    writer.close()
    assert read_metrics(tmp_path) == lines_of(1, 2, 3, 4, 5)
    assert points_of(tmp_path) == [(step, "train/loss", 1.0) for step in (1, 2, 3, 4, 5)]
    assert capsys.readouterr().err == ""


def test_no_part_of_a_record_stays(tmp_path, capsys):
    """What is framed, as events are, could not be read from there on."""
    file = AppendedFile(tmp_path / "file", "records", header=b"header:")
    for fits in (3, 12):
        with no_file_longer_than(fits):
            file.append(b"record,")
            assert not (tmp_path / "file").read_bytes()
    file.append(b"last")
    file.close()
    assert (tmp_path / "file").read_bytes() == b"header:record,record,last"


def test_records_that_never_found_room_are_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(appended_file, "_MOST_WAITING", 3)
    file = AppendedFile(tmp_path / "file", "lines")
    with no_file_longer_than(0):
        for number in range(5):
            file.append(b"%d\n" % number)
        capsys.readouterr()
    file.append(b"5\n")
    file.close()
    assert (tmp_path / "file").read_bytes() == b"2\n3\n4\n5\n"
    assert capsys.readouterr().err == f"warning: 2 lines of {tmp_path / 'file'} are lost\n"
    file = AppendedFile(tmp_path / "other", "lines")
    with no_file_longer_than(0):
        file.append(b"0\n")
        file.close()
    errors = capsys.readouterr().err
    assert f"1 lines of {tmp_path / 'other'} are lost: File too large\n" in errors


def test_lines_begin_on_a_line_of_their_own(tmp_path):
    """A part of a line that could not be taken back stays alone."""
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, "train", {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "ki')
    writer.write(3, "train", {"loss": 1.0})
    writer.close()
    assert read_metrics(tmp_path) == lines_of(1, 3)


@pytest.mark.parametrize("place", ["folder", "pipe", "link to nowhere"])
def test_anything_in_the_place_of_the_metrics_costs_the_metrics(tmp_path, capsys, place):
    path = tmp_path / "metrics.jsonl"
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link to nowhere": lambda: path.symlink_to(tmp_path / "none" / "file"),
    }[place]()
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2):
        writer.write(step, "train", {"loss": 1.0})
    writer.close()
    assert f"{path} cannot be written" in capsys.readouterr().err
    assert len(points_of(tmp_path)) == 2
    if place != "link to nowhere":
        with pytest.raises(UserError, match="cannot be read"):
            read_metrics(tmp_path)


def test_resumed_run_takes_back_the_curves_of_later_steps(tmp_path):
    for step in (0, 5):
        writer = MetricsWriter(tmp_path, step)
        writer.write(step + 1, "train", {"loss": 0.5, "accuracy": float("nan")})
        writer.close()
    starts = [e.step for e in events_of(tmp_path) if e.session_log.status == SessionLog.START]
    assert starts == [1, 6]
    assert [(step, tag) for step, tag, _ in points_of(tmp_path)] == [
        (step, f"train/{name}") for step in (1, 6) for name in ("loss", "accuracy")
    ]


def test_file_in_the_place_of_the_curves_costs_the_curves(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("a file")
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2):
        writer.write(step, "train", {"loss": 1.0})
    writer.close()
    told, lost = capsys.readouterr().err.splitlines()
    assert f"warning: {tmp_path / 'tensorboard'}" in told and "File exists" in told
    assert "2 points" in lost and "are lost" in lost
    assert read_metrics(tmp_path) == lines_of(1, 2)


def test_broken_package_costs_the_curves(tmp_path, capsys, monkeypatch):
    original = builtins.__import__

    def broken(name, *others):
        if name.startswith("tensorboardX"):
            raise TypeError("Descriptors cannot be created directly")
        return original(name, *others)

    monkeypatch.delitem(sys.modules, "flax_transformer.training.curves", raising=False)
    monkeypatch.setattr(builtins, "__import__", broken)
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, "train", {"loss": 1.0})
    writer.close()
    assert read_metrics(tmp_path) == lines_of(1)
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "Descriptors cannot be created directly" in errors


def test_means_are_over_tokens_and_norms_over_steps():
    means = RunningMeans()
    means.add({"loss": 6.0, "nll": 0.0, "correct": 1.0, "tokens": 2.0, "gradient_norm": 1.0})
    means.add({"loss": 0.0, "nll": 0.0, "correct": 3.0, "tokens": 6.0, "gradient_norm": 2.0})
    values = means.means()
    np.testing.assert_allclose(
        [values[k] for k in ("loss", "perplexity", "accuracy", "gradient_norm")],
        [0.75, 1.0, 0.5, 1.5],
    )
