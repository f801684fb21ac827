"""The benchmark of shorter numbers as a command, at a size that says nothing about speed."""

import json
from pathlib import Path

import pytest
from support.states import save_untrained_run

from flax_transformer.data.builtin import generate

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "peer", [None, pytest.param("ctranslate2", marks=pytest.mark.peer("ctranslate2"))]
)
def test_the_command_measures_and_records(peer, small_config, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import quantization

    pairs = generate(400)
    save_untrained_run(tmp_path, small_config, [text for pair in pairs["train"] for text in pair])
    for side, name in enumerate(("source", "reference")):
        text = "".join(f"{pair[side]}\n" for pair in pairs["test"][:6])
        (tmp_path / name).write_text(text)
    words = f"--workdir {tmp_path} --source {tmp_path}/source --reference {tmp_path}/reference"
    record = tmp_path / "record.json"
    more = ["--peer", peer] if peer else []
    quantization.main([*words.split(), "--repeats", "1", "--record", str(record), *more])
    (entry,) = json.loads(record.read_text())
    figures = entry["figures"]
    found = figures["contenders"]
    assert found["float32"]["same_as_float32"] == 1 and figures["sentences"] == 6
    assert all(each["target_tokens_per_second"] > 0 for each in found.values())
    assert ("ctranslate2 int8" in found) is bool(peer)
    if peer:
        assert figures["log_probabilities_at_most_apart"] < 1e-3
        assert 0 <= figures["same_when_searching_as_long"] <= 1
    assert "target tokens/s" in capsys.readouterr().out
