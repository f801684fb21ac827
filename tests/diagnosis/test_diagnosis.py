"""`train.py --diagnose`, whole: for every family of models, and without a trace in the run."""

import json
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from flax_transformer.commands import train
from flax_transformer.commands.command_line import parse_train_arguments
from flax_transformer.diagnosis import figures
from flax_transformer.diagnosis.attention_statistics import CROSS
from flax_transformer.errors import UserError
from flax_transformer.training.run import Run
from flax_transformer.training.train_loop import Trainer, start_training

pytestmark = pytest.mark.usefixtures("quick")


CONFIG = """
from flax_transformer.config import *

config = Config(
    data=Builtin(num_pairs=200),
    tokenizer=TokenizerConfig(vocabulary_size=400),
    batch=BatchConfig(rows=8, source_length=32, target_length=32),
    model=MODEL,
    optimizer=OptimizerConfig(warmup_steps=1),
    training=TrainingConfig(steps=40),
    decoding=DecodingConfig(extra_length=2, max_source_length=32),
)
"""

SMALL = "d_model=16, num_encoder_layers=1, num_decoder_layers=1, compute_dtype='float32'"
MODELS = {
    "transformer": f"TransformerConfig({SMALL}, num_heads=2, d_ff=32)",
    "attention": f"RecurrentConfig({SMALL}, attention='general', input_feeding=False)",
    "no attention": f"RecurrentConfig({SMALL}, attention='none', input_feeding=False)",
}


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Makes the words of a command, whose process must not look for others: jax has begun."""
    monkeypatch.setattr("flax_transformer.parallel.hosts.join_hosts", lambda hosts: None)

    def write(model: str, *flags: str) -> list[str]:
        path = tmp_path / "tiny.py"
        path.write_text(CONFIG.replace("MODEL", MODELS[model]))
        return ["--config", str(path), "--workdir", str(tmp_path / "run"), *flags]

    return write


@pytest.fixture(autouse=True)
def few_sentences(monkeypatch):
    monkeypatch.setattr(figures, "_SENTENCES", 8)
    monkeypatch.setattr(figures, "_BATCHES", 2)


def contents(workdir: Path) -> dict[Path, bytes]:
    """Every file of the run but the diagnosis."""
    files = [path for path in workdir.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if path.name != "diagnosis.json"}


def open_run(words: list[str]) -> Run:
    arguments = parse_train_arguments(words)
    return Run(arguments.settings, arguments.run_directory)


def take_step(trainer: Trainer) -> None:
    trainer.take_step(next(trainer.batches()))


def test_run_is_diagnosed_and_goes_on_as_if_it_had_not_been(words, tmp_path, capsys):
    run = open_run(words("transformer"))
    with start_training(run) as trainer:
        for _ in range(2):
            take_step(trainer)
        trainer.log()
        trainer.save()
        take_step(trainer)
        expected = jax.device_get(run.state)
    before = contents(tmp_path / "run")
    assert any("checkpoints" in path.parts for path in before)
    assert tmp_path / "run" / "metrics.jsonl" in before
    capsys.readouterr()
    train.main(words("transformer", "--diagnose"))
    output = capsys.readouterr().out
    assert contents(tmp_path / "run") == before
    assert "The run after step 2 of 40" in output
    assert "decoder layer 1: cross_attention" in output
    assert "findings, the most serious first" in output
    record = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert record["step"] == 2 and record["outputs"]["sentences"] == 8
    assert np.shape(record["attention"][CROSS]["entropy"]) == (1, 2)
    assert all(0 < module["ratio"] < 1 for module in record["modules"])
    assert {finding["seen"] for finding in record["findings"]}
    run = open_run(words("transformer"))
    with start_training(run) as again:
        again._train_step = trainer._train_step  # compiled already
        take_step(again)
        chex.assert_trees_all_equal(jax.device_get(run.state), expected)


@pytest.mark.parametrize("model", ["attention", "no attention"])
def test_recurrent_models_are_diagnosed_before_the_first_step(model, words, tmp_path, capsys):
    train.main(words(model, "--diagnose"))
    output = capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert record["step"] == 0 and "nothing is trained yet" in output
    assert abs(record["losses"]["validation"] - np.log(400)) < 2
    if model == "attention":
        assert np.shape(record["attention"][CROSS]["entropy"]) == (1, 1)
        assert "attention entropy by head" in output
    else:
        assert record["attention"] == {}
        assert "this model has no attention" in output
    assert not list((tmp_path / "run").rglob("metrics.jsonl"))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_diagnosis_is_no_dry_run(words):
    with pytest.raises(UserError, match="--diagnose and --dry-run exclude each other"):
        parse_train_arguments(words("transformer", "--diagnose", "--dry-run"))
