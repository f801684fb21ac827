"""Fine-tuning: what a run takes from the run that it starts from, and what it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

import flax_transformer as ft
from flax_transformer.commands.command_line import parse_train_arguments
from flax_transformer.config import (
    BatchConfig,
    Config,
    DecodingConfig,
    OptimizerConfig,
    TextFiles,
    TokenizerConfig,
    TrainingConfig,
)
from flax_transformer.config.json import load_config
from flax_transformer.data.builtin import generate
from flax_transformer.errors import UserError
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.training.run import Run
from flax_transformer.translation.trained_model import TrainedModel

pytestmark = pytest.mark.usefixtures("quick")


def write_text(folder: Path, begin: int) -> str:
    pairs = generate(400)["train"][begin : begin + 200]
    for name, some in {"train": pairs, "valid": pairs[:8], "more": pairs[:50]}.items():
        for language, side in (("en", 0), ("fr", 1)):
            text = "".join(pair[side] + "\n" for pair in some)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def config(small_config, tmp_path_factory) -> Config:
    folder = write_text(tmp_path_factory.mktemp("text"), 0)
    return Config(
        data=TextFiles(directory=folder, source_language="en", target_language="fr", test=()),
        tokenizer=TokenizerConfig(vocabulary_size=400),
        batch=BatchConfig(rows=8, source_length=48, target_length=48),
        model=dataclasses.replace(small_config.model, num_encoder_layers=1, num_decoder_layers=1),
        optimizer=OptimizerConfig(warmup_steps=10),
        training=TrainingConfig(
            steps=4, log_every=1, evaluate_every=100, validation_sentences=2, checkpoint_every=2
        ),
        decoding=DecodingConfig(extra_length=2, average_checkpoints=2, batch_tokens=128),
    )


@pytest.fixture(scope="module")
def base(config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("base") / "run"
    Run(config, workdir).train()
    return workdir


@pytest.fixture(scope="module")
def other_text(tmp_path_factory) -> str:
    return write_text(tmp_path_factory.mktemp("other"), 200)


def tuned(config: Config, base: Path, text: str, **training) -> Config:
    """Other text, rate and label smoothing, and a vocabulary of its own, were it to learn one."""
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, directory=text),
        tokenizer=TokenizerConfig(vocabulary_size=390),
        optimizer=OptimizerConfig(warmup_steps=1, learning_rate_scale=0.0),
        training=dataclasses.replace(
            config.training, start_from=str(base), label_smoothing=0.0, **training
        ),
    )


def params_of(workdir: Path, **decoding):
    config = load_config(workdir / "config.json")
    decoding = dataclasses.replace(config.decoding, **decoding)
    model = TrainedModel(workdir, dataclasses.replace(config, decoding=decoding))
    return jax.device_get(model.params)


@pytest.mark.parametrize("checkpoint", ["auto", 2])
def test_with_rate_0_it_stays_where_it_starts(config, base, other_text, tmp_path, checkpoint):
    settings = tuned(config, base, other_text, start_checkpoint=checkpoint)
    run = Run(settings, tmp_path / "run")
    run.train()
    found = params_of(tmp_path / "run", checkpoint="latest")
    chex.assert_trees_all_equal(found, params_of(base, checkpoint=checkpoint))
    other = params_of(base, checkpoint=4)
    assert np.abs(found["embedding"]["table"] - other["embedding"]["table"]).max() > 1e-6
    vocabulary = (tmp_path / "run" / "tokenizer.model").read_bytes()
    assert vocabulary == (base / "tokenizer.model").read_bytes()
    assert run.config.tokenizer.vocabulary_size == 400


def test_it_learns_from_there(config, base, other_text, tmp_path):
    settings = tuned(config, base, other_text)
    settings = dataclasses.replace(settings, optimizer=OptimizerConfig(warmup_steps=1))
    run = Run(settings, tmp_path / "run")
    before = jax.device_get(run.state.params)
    chex.assert_trees_all_equal(before, params_of(base))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(run.state.optimizer_state))
    run.train()
    after = jax.device_get(run.state.params)
    assert not np.array_equal(after["embedding"]["table"], before["embedding"]["table"])


def test_the_start_belongs_to_the_run(config, base, other_text, tmp_path, capsys):
    moved, workdir = tmp_path / "base", tmp_path / "run"
    shutil.copytree(base, moved)
    settings = tuned(config, moved, other_text)
    Run(settings, workdir).train()
    assert f"mean of the checkpoints of steps 2 and 4 of {moved}" in capsys.readouterr().out
    shutil.rmtree(moved)  # nothing is read from there once there is a checkpoint

    longer = dataclasses.replace(settings.training, steps=6, start_from=None)
    with Run(dataclasses.replace(settings, training=longer), workdir) as run:
        assert run.step == 4 and run.config.training.start_from == str(moved)
        assert run.progress.start == {
            "directory": str(moved),
            "checkpoint": "average",
            "steps": [2, 4],
            "trained_on": run.progress.start["trained_on"],
        }
        assert run.progress.start["trained_on"]["train"] != run.progress.corpus["train"]
    other = dataclasses.replace(settings.training, start_from=str(base))
    with pytest.raises(UserError, match=r"training\.start_from"):
        Run(dataclasses.replace(settings, training=other), workdir)


def test_a_first_start_that_failed_binds_the_vocabulary(config, base, other_text, tmp_path):
    settings = tuned(config, base, other_text)
    Run(settings, tmp_path).close()
    own = dataclasses.replace(settings.training, start_from=None)
    with pytest.raises(UserError, match=r"tokenizer\.model was learnt with other settings"):
        Run(dataclasses.replace(settings, training=own), tmp_path)
    with Run(settings, tmp_path) as run:
        chex.assert_trees_all_equal(jax.device_get(run.state.params), params_of(base))


def test_new_tags_leave_what_there_was(config, base, other_text, tmp_path):
    settings = tuned(config, base, other_text)
    data = dataclasses.replace(settings.data, train=("train", "more,tag=<bt>", "more,tag=<aa>"))
    with Run(dataclasses.replace(settings, data=data), tmp_path) as run:
        table = jax.device_get(run.state.params["embedding"]["table"])
        old = params_of(base)["embedding"]["table"]
        np.testing.assert_array_equal(table[:400], old)
        assert table.shape == (402, 16) and np.abs(table[400:]).min() > 0
        vocabulary, before = run.data.tokenizer, Tokenizer.load(base / "tokenizer.model")
        assert [vocabulary.tag_id(tag) for tag in ("<aa>", "<bt>")] == [400, 401]
        lines = ["The <bt> cat sleeps.", "<aa>", "Ça va ?"]
        assert vocabulary.encode(lines) == before.encode(lines)
        assert vocabulary.sample(lines, 0.3, 1) == before.sample(lines, 0.3, 1)
        assert vocabulary.decode([[400, 5 + 256, 401]]) == before.decode([[5 + 256]])
        ids = run.data.train.pairs.source
        assert any(401 in ids[i] for i in range(len(ids)))


def test_a_shape_that_does_not_fit_is_named(config, base, other_text, tmp_path):
    settings = tuned(config, base, other_text)
    model = dataclasses.replace(settings.model, d_ff=48, dropout=0.3)
    with pytest.raises(UserError) as found:
        Run(dataclasses.replace(settings, model=model), tmp_path)
    message = str(found.value)
    assert "decoder.feed_forward.b1 is (l 1, f 32) there and (l 1, f 48) here" in message
    assert "model.d_ff" in message and "training." not in message
    model = dataclasses.replace(settings.model, norm="pre")
    with pytest.raises(UserError, match=r"decoder_norm.*missing there"):
        Run(dataclasses.replace(settings, model=model), tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "is not the work directory of a run"), ("empty", "holds no checkpoints")],
)
def test_a_start_that_cannot_be_read(config, base, other_text, tmp_path, name, message):
    shutil.copytree(base, tmp_path / "empty", ignore=shutil.ignore_patterns("checkpoints", "best"))
    with pytest.raises(UserError, match=message):
        Run(tuned(config, tmp_path / name, other_text), tmp_path / "run")


def test_the_flag_is_a_setting(tmp_path, base):
    file = tmp_path / "tiny.py"
    file.write_text("from flax_transformer.config import Config\nconfig = Config()\n")
    words = ["--config", str(file), "--start-from", str(base)]
    assert parse_train_arguments(words).settings.training.start_from == str(base)


@pytest.mark.parametrize("loaded", [False, True])
def test_python_users_name_it_too(config, base, other_text, tmp_path, loaded):
    start = ft.load(base) if loaded else base
    settings = dataclasses.replace(tuned(config, base, other_text), training=config.training)
    with Run(settings, tmp_path, start_from=start) as run:
        chex.assert_trees_all_equal(jax.device_get(run.state.params), params_of(base))
    assert json.loads((tmp_path / "config.json").read_text())["training"]["start_from"] == str(base)
