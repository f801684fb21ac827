"""The benchmarks as commands, at a size that says nothing about speed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
TINY = (
    "--model.num-encoder-layers 1 --model.num-decoder-layers 1 --model.d-model 16 "
    "--model.num-heads 2 --model.d-ff 32 --model.unroll-layers 1 --model.dropout 0 "
    "--tokenizer.vocabulary-size 300 "
    "--batch.rows 8 --batch.source-length 16 --batch.target-length 16 --steps 4 --repeats 1 "
    "--optimizer.warmup-steps 4"
)


def run(script: str, record: Path, flags: str) -> subprocess.CompletedProcess:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, f"benchmarks/{script}", "--record", str(record), *flags.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )


def last_record(done: subprocess.CompletedProcess, record: Path) -> dict:
    assert done.returncode == 0, done.stderr
    entry = json.loads(record.read_text())[-1]
    assert {"date", "machine", "python", "versions", "command", "note"} <= set(entry)
    assert "/" not in entry["command"].replace("benchmarks/", "")
    return entry


def test_input_pipeline(tmp_path):
    record = tmp_path / "folder" / "record.json"
    flags = "--pairs 800 --vocabulary-size 400 --rows 4 --batches 3 --repeats 2"
    for count in (1, 2):
        done = run("input_pipeline.py", record, flags)
        entry = last_record(done, record)
        assert len(json.loads(record.read_text())) == count
    assert entry["pairs"] == 800 and entry["vocabulary_size"] == 400
    for name in ("pairs_per_second", "target_tokens_per_second"):
        assert entry[name] > 0 and len(entry[f"{name}_of_repeats"]) == 2
        assert f"{entry[name]:,}" in done.stdout


def test_train_step(tmp_path):
    record = tmp_path / "record.json"
    done = run("train_step.py", record, f"{TINY} --sentence-tokens 5")
    entry = last_record(done, record)
    assert "MFU = " in done.stdout and entry["packed"]
    assert set(entry["results"]) == {"ours bfloat16", "ours float32"}
    assert set(entry["ratios"]) == {"ours bfloat16 / ours float32"}
    assert entry["model"]["d_model"] == 16 and entry["batch"]["rows"] == 8
    assert 64 < entry["target_tokens_in_a_step"] <= 128
    for result in entry["results"].values():
        assert result["target_tokens_per_second"] > 0 and result["peak_bytes"] > 0
        assert np.mean(result["last_losses"]) < np.mean(result["first_losses"])
        assert result["mfu"] is None  # nobody has told the peak of a CPU
        assert len(result["step_seconds_of_repeats"]) == 1


def test_step_profile(tmp_path):
    record = tmp_path / "record.json"
    done = run(
        "step_profile.py", record, TINY.replace("--repeats 1", "").replace("--steps 4", "--steps 2")
    )
    entry = last_record(done, record)
    assert sum(entry["shares"].values()) == pytest.approx(1, abs=0.01)
    # Of how long each takes nothing can be said at this size, on a machine that does other things.
    kinds = ("products of the loss", "products of feed-forward", "layer norm")
    for kind in (*kinds, "softmax and masks of attention"):
        assert 0 < entry["shares"][kind] < 1
    assert "products of the loss" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_torch_trains_the_same_model(tmp_path):
    record = tmp_path / "record.json"
    done = run("train_step.py", record, f"{TINY} --peer torch --compute-dtypes float32")
    entry = last_record(done, record)
    ours, theirs = (entry["results"][f"{name} float32"] for name in ("ours", "torch"))
    np.testing.assert_allclose(ours["first_losses"][0], theirs["first_losses"][0], rtol=1e-5)
    # Torch's attention has biases, and Adam makes much of small differences.
    np.testing.assert_allclose(ours["first_losses"], theirs["first_losses"], rtol=2e-2)
    assert entry["ratios"]["ours float32 / torch float32"] > 0


def test_missing_torch_is_one_message(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('No module named torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    done = run("train_step.py", tmp_path / "record.json", f"{TINY} --peer torch")
    assert done.returncode == 2
    assert "pip install torch" in done.stderr and "Traceback" not in done.stderr
