"""The record of a sweep over slices: resumable, and never of two settings."""

import dataclasses
import json
from pathlib import Path

import pytest

from flax_transformer.config.shipped import load_config_file
from flax_transformer.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scaling(monkeypatch):
    """The names of the script, for which the TPU compiler need not be installed."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import recording
    from benchmarks.train_step import scaling

    monkeypatch.setattr(recording, "version", lambda package: "1")
    return scaling


def test_sweep_goes_on_where_it_stopped(scaling, tmp_path):
    path = ROOT / "configs" / "wmt_base.py"
    arguments = scaling.Arguments(config=path, records=tmp_path)
    config, file = load_config_file(path), tmp_path / "record.json"
    record = scaling.open_record(file, arguments, config)
    record["figures"]["points"]["v5e:1x1"] = {
        "chips": 1,
        "rows": 64,
        "fits": False,
        "memory_bytes": 2**35,
    }
    scaling.write_record(file, [record])
    assert json.loads(file.read_text()) == [record]
    assert record == scaling.open_record(file, arguments, config)
    for other in (dataclasses.replace(arguments, rows_per_chip=32), arguments):
        model = dataclasses.replace(config.model, remat="everything")
        changed = dataclasses.replace(config, model=model)
        with pytest.raises(UserError, match="--name"):
            scaling.open_record(file, other, changed if other is arguments else config)


def test_table_has_a_line_for_every_slice(scaling):
    seconds = {"products": 0.001, "memory": 0.004, "interconnect": 0.002}
    points = [
        {"chips": 1, "rows": 64, "fits": False, "memory_bytes": 2**35},
        {"chips": 4, "rows": 256, "fits": True, "memory_bytes": 2**33, "seconds": seconds,
         "target_tokens_per_second": 123456.0, "mfu": 0.25},
    ]  # fmt: skip
    lines = scaling.table(points).split("\n")
    assert len(lines) == 3
    assert "32.00 GiB" in lines[1] and "does not fit" in lines[1]
    assert all(text in lines[2] for text in ("8.00 GiB", "4.00 ms", "123,456", "25.0%"))
