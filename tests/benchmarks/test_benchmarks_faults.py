"""What the benchmark of faults takes for a failure."""

import copy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOUND = {
    "kills": {"kills": 2, "arrays that differ": 0},
    "flips": {"flips": 8, "not seen": 0},
    "disks": [{"code": 2, "traceback": False, "then": 0, "arrays that differ": 0}],
    "signals": [{"code": 143, "traceback": False, "then": 0, "arrays that differ": 0}],
    "readers": {"failed loads": 0, "failed commands": 0},
}


@pytest.fixture
def held(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.faults.__main__ import held

    return held


def test_a_run_that_loses_nothing_holds(held):
    assert held(SOUND) and held({}) and held({"kills": SOUND["kills"]})
    assert held(SOUND | {"disks": "not run: only root can make small disks, on Linux"})


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("kills", "arrays that differ", 1),
        ("flips", "not seen", 1),
        ("disks", "code", "hangs"),
        ("disks", "traceback", True),
        ("signals", "code", None),
        ("signals", "then", 1),
        ("signals", "arrays that differ", 2),
        ("readers", "failed loads", 1),
        ("readers", "failed commands", 1),
    ],
)
def test_whatever_is_lost_silent_or_hangs_is_a_failure(held, part, name, value):
    figures = copy.deepcopy(SOUND)
    rows = figures[part]
    (rows[0] if isinstance(rows, list) else rows)[name] = value
    assert not held(figures)


def test_flips_are_added_up(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.faults.flips import totals

    found = {"checkpoint": {"seen": 3, "silent": 1}, "tokens": {"traceback (OSError)": 2}}
    assert totals(found) == {"flips": 6, "not seen": 3}
