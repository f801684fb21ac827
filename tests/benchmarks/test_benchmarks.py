"""The benchmarks as commands, at a size that says nothing about speed."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.config import Config
from flax_transformer.ops import dropout

ROOT = Path(__file__).parents[2]
TINY = (
    "--model.num-encoder-layers 1 --model.num-decoder-layers 1 --model.d-model 16 "
    "--model.num-heads 2 --model.d-ff 32 --model.unroll-layers 1 --model.dropout 0 "
    "--tokenizer.vocabulary-size 300 "
    "--batch.rows 8 --batch.source-length 16 --batch.target-length 16 --steps 4 --repeats 1 "
    "--optimizer.warmup-steps 4"
)

TINY_CONFIG = """
from flax_transformer.config import *

config = Config(
    tokenizer=TokenizerConfig(vocabulary_size=300),
    batch=BatchConfig(rows=2, source_length=32, target_length=32),
    model=TransformerConfig(
        num_encoder_layers=1, num_decoder_layers=1, d_model=16, num_heads=2, d_ff=32
    ),
)
"""


def run(module: str, record: Path, flags: str) -> subprocess.CompletedProcess:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--record", str(record), *flags.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )


def last_figures(done: subprocess.CompletedProcess, record: Path) -> dict:
    assert done.returncode == 0, done.stderr
    entry = json.loads(record.read_text())[-1]
    assert entry["command"].startswith("python -m benchmarks.")
    assert "/" not in entry["command"]
    return entry["figures"]


@pytest.mark.slow
def test_input_pipeline(tmp_path):
    record = tmp_path / "folder" / "record.json"
    flags = "--pairs 800 --vocabulary-size 400 --rows 4 --batches 3 --repeats 2"
    for count in (1, 2):
        done = run("input_pipeline", record, flags)
        entry = last_figures(done, record)
        assert len(json.loads(record.read_text())) == count
    assert entry["pairs"] == 800 and entry["vocabulary_size"] == 400
    shares = [entry[f"{name}_filled"] for name in ("source_slots", "slots", "target_slots")]
    assert min(shares) > 0 and max(shares) <= 1 and shares[1] == sorted(shares)[1]
    for name in ("pairs_per_second", "target_tokens_per_second"):
        assert entry[name] > 0 and len(entry[f"{name}_of_repeats"]) == 2
        assert f"{entry[name]:,}" in done.stdout


@pytest.mark.slow
def test_train_step(tmp_path):
    record = tmp_path / "record.json"
    done = run("train_step", record, f"{TINY} --sentence-tokens 5")
    entry = last_figures(done, record)
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


@pytest.mark.slow
def test_step_profile(tmp_path):
    record = tmp_path / "record.json"
    done = run(
        "train_step.profile",
        record,
        TINY.replace("--repeats 1", "").replace("--steps 4", "--steps 2"),
    )
    entry = last_figures(done, record)
    assert sum(entry["shares"].values()) == pytest.approx(1, abs=0.01)
    # Of how long each takes nothing can be said at this size, on a machine that does other things.
    kinds = ("products of the loss", "products of feed-forward", "layer norm")
    for kind in (*kinds, "softmax and masks of attention"):
        assert 0 < entry["shares"][kind] < 1
    assert "products of the loss" in done.stdout


@pytest.fixture
def figures_of(tmp_path, monkeypatch):
    """Runs a benchmark in this process, which loads nothing anew; returns its figures."""
    monkeypatch.syspath_prepend(str(ROOT))
    config, record = tmp_path / "tiny.py", tmp_path / "record.json"
    config.write_text(TINY_CONFIG)

    def figures(module: str, flags: str) -> dict:
        words = flags.format(config=config).split()
        importlib.import_module(f"benchmarks.{module}").main([*words, "--record", str(record)])
        (entry,) = json.loads(record.read_text())
        return entry["figures"]

    return figures


@pytest.mark.slow
def test_step_variants(figures_of):
    flags = "--config {config} --repeats 1 --batch.rows 4 --variants float32"
    figures = figures_of("train_step.variants", flags)
    assert figures["rows"] == 4 and figures["target_tokens_per_second"] > 0
    costs = figures["times_as_long"]
    assert list(costs) == ["as it is", "float32"] and costs["as it is"] == 1


def test_dropout_by_threefry_is_another_program(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.train_step import variants

    class Traced:
        def __init__(self, config, batches):
            ids = jnp.zeros(3)
            mask = jax.make_jaxpr(lambda x: dropout.keep_mask(jax.random.key(0), x.shape, 0.5))
            self.program, self.model = str(mask(ids)), config.model

    monkeypatch.setattr(variants, "OurStep", Traced)
    steps = variants.compile_variants(Config(), [], tuple(variants.VARIANTS))
    plain = steps.pop("as it is")
    assert len(steps) == 5
    for name, step in steps.items():
        differs = (step.program != plain.program, step.model != plain.model)
        assert differs == ((True, False) if name == "dropout by threefry" else (False, True))


def test_recurrent_layer(figures_of):
    flags = "--length 4 --rows 2 --width 8 --repeats 1"
    results = figures_of("train_step.recurrent_layer", flags)["results"]
    assert set(results) == {"ours, float32", "ours, bfloat16"}
    for each in results.values():
        seconds = each["milliseconds"] / 1000
        assert each["positions_per_second"] * seconds == pytest.approx(4 * 2)


@pytest.mark.slow
def test_costs_of_checks(figures_of):
    figures = figures_of("faults.costs", "--config {config} --steps 1 --saves 1")
    assert figures["bytes"] > 0 and figures["step"]["the check alone"] > 0
    for part in ("step", "writing", "reading"):
        checked, plain = list(figures[part].values())[:2]
        assert checked > 0 and plain > 0, part


@pytest.mark.slow
def test_a_peer_is_a_file_that_prepares_steps(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from benchmarks.train_step.__main__ import main

    taken, told = [], {}

    class Peer:
        peak_bytes = 7

        def step(self):
            taken.append("step")

        def wait(self):
            taken.append("wait")

        def losses(self):
            return [1.0] * taken.count("step")

    def prepare(config, params, batches, dtype, steps):
        told.update(params=params, batches=batches, dtype=dtype, steps=steps)
        return Peer()

    checked = []
    peer = SimpleNamespace(PACKAGES=("numpy",), check=checked.append, prepare=prepare)
    monkeypatch.setitem(sys.modules, "benchmarks.train_step.peers.torch", peer)
    record = tmp_path / "record.json"
    flags = f"{TINY} --peer torch --compute-dtypes float32 --repeats 2 --record {record}"
    main(flags.split())
    (entry,) = json.loads(record.read_text())
    assert taken == 3 * ["step", "step", "step", "step", "wait"] and told["steps"] == 12
    assert (told["dtype"], len(checked), len(told["batches"])) == ("float32", 1, 4)
    assert all((batch.target_segments == 1).all() for batch in told["batches"])
    assert told["params"]["embedding"]["table"].shape == (300, 16)
    figures = entry["figures"]
    assert figures["results"]["torch float32"]["peak_bytes"] == 7
    assert set(figures["ratios"]) == {"ours float32 / torch float32"}
    assert "numpy" in entry["versions"] and not figures["packed"]


@pytest.mark.peer("torch")
def test_torch_trains_the_same_model(tmp_path):
    record = tmp_path / "record.json"
    done = run("train_step", record, f"{TINY} --peer torch --compute-dtypes float32")
    entry = last_figures(done, record)
    ours, theirs = (entry["results"][f"{name} float32"] for name in ("ours", "torch"))
    np.testing.assert_allclose(ours["first_losses"][0], theirs["first_losses"][0], rtol=1e-5)
    # Torch's attention has biases, and Adam makes much of small differences.
    np.testing.assert_allclose(ours["first_losses"], theirs["first_losses"], rtol=2e-2)
    assert entry["ratios"]["ours float32 / torch float32"] > 0


def test_missing_torch_is_one_message(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('No module named torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    done = run("train_step", tmp_path / "record.json", f"{TINY} --peer torch")
    assert done.returncode == 2
    assert "pip install torch" in done.stderr and "Traceback" not in done.stderr
