"""Fine-tuning: what a run takes from the run that it starts from, and what it refuses."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import flax_transformer as ft
from flax_transformer.commands.command_line import parse_train_arguments
from flax_transformer.config import (
    BatchConfig,
    Config,
    DecodingConfig,
    MeshConfig,
    OptimizerConfig,
    TextFiles,
    TokenizerConfig,
    TrainingConfig,
)
from flax_transformer.config.json import load_config
from flax_transformer.data.builtin import generate
from flax_transformer.errors import UserError
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.text.vocabulary_file import load_tokenizer
from flax_transformer.training.run import Run
from flax_transformer.training.starting_point import _with_rows_of
from flax_transformer.training.state import create_state
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
            config.training, **{"start_from": str(base), "label_smoothing": 0.0} | training
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
    with pytest.raises(UserError, match=r"tokenizer\.model was learned with other settings"):
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
        vocabulary, before = run.data.tokenizer, load_tokenizer(base / "tokenizer.model")
        assert [vocabulary.tag_id(tag) for tag in ("<aa>", "<bt>")] == [400, 401]
        lines = ["The <bt> cat sleeps.", "<aa>", "Ça va ?"]
        assert vocabulary.encode(lines) == before.encode(lines)
        assert vocabulary.sample(lines, 0.3, 1) == before.sample(lines, 0.3, 1)
        assert vocabulary.decode([[400, 5 + 256, 401]]) == before.decode([[5 + 256]])
        ids = run.data.train.pairs.source
        assert any(401 in ids[i] for i in range(len(ids)))


def with_pieces(config: Config, base: Path, text: str, count: int, **training) -> Config:
    """A run on text with words that the vocabulary of `base` spells letter by letter."""
    settings = tuned(config, base, text, **training)
    tokenizer = dataclasses.replace(settings.tokenizer, added_pieces=count)
    return dataclasses.replace(settings, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def odd_text(tmp_path_factory) -> str:
    folder = Path(write_text(tmp_path_factory.mktemp("odd"), 200))
    for language in ("en", "fr"):
        for name in ("train", "more"):
            path = folder / f"{name}.{language}"
            lines = path.read_text(encoding="utf-8").splitlines()
            path.write_text("".join(f"{line} Xylophonist, жук!\n" for line in lines), "utf-8")
    return str(folder)


def test_new_pieces_leave_what_there_was(config, base, odd_text, tmp_path, capsys):
    settings = with_pieces(config, base, odd_text, 12)
    data = dataclasses.replace(settings.data, train=("train", "more,tag=<bt>"))
    with Run(dataclasses.replace(settings, data=data), tmp_path) as run:
        table = jax.device_get(run.state.params["embedding"]["table"])
        old = params_of(base)["embedding"]["table"]
        vocabulary, before = run.data.tokenizer, load_tokenizer(base / "tokenizer.model")
        assert run.config.tokenizer.vocabulary_size == vocabulary.vocabulary_size == 413
        np.testing.assert_array_equal(table[:400], old)
        for piece, row in zip(vocabulary.pieces(range(400, 412)), table[400:412], strict=True):
            parts = before.ids_of_piece(piece)
            np.testing.assert_allclose(row, old[parts].mean(0), rtol=1e-5)
        assert vocabulary.tag_id("<bt>") == 412
        fresh = np.asarray(create_state(run.config, run.mesh).params["embedding"]["table"])
        np.testing.assert_array_equal(table[412], fresh[412])
        lines = ["The cat sleeps.", "Ça va ?"]
        assert vocabulary.encode(lines) == before.encode(lines)
        odd = ["Xylophonist, жук!"]
        assert len(vocabulary.encode(odd)[0]) < 0.6 * len(before.encode(odd)[0])
    assert "12 pieces added to the vocabulary" in capsys.readouterr().out


def test_rows_of_new_pieces_are_the_same_on_every_mesh(small_config):
    random = np.random.default_rng(0)
    fresh, start = (random.normal(size=(rows, 16)).astype(np.float32) for rows in (328, 304))
    spelled = [random.integers(0, 304, size).tolist() for size in (2, 0, 3, 5, 1, 0, 4, 2)] * 3
    joined = []
    for mesh in (MeshConfig(data=1), MeshConfig(data=1, fsdp=2, model=4)):
        count = math.prod(abs(size) for size in dataclasses.astuple(mesh))
        rows = NamedSharding(build_mesh(mesh, jax.devices()[:count]), PartitionSpec("model"))
        arrays = (jax.device_put(array, rows) for array in (fresh, start))
        joined.append(_with_rows_of(*arrays, spelled=spelled))
        assert joined[-1].sharding == rows
    np.testing.assert_array_equal(*joined)


def test_it_goes_on_with_the_pieces_it_began_with(config, base, odd_text, tmp_path):
    moved, workdir = tmp_path / "base", tmp_path / "run"
    shutil.copytree(base, moved)
    settings = with_pieces(config, moved, odd_text, 12, steps=2)
    Run(settings, workdir).train()  # with rate 0
    shutil.rmtree(moved)
    with Run(settings, workdir) as run:
        assert run.step == 2 and run.data.tokenizer.vocabulary_size == 412
        found, started = jax.device_get(run.state.params), params_of(base)
        found["embedding"]["table"] = found["embedding"]["table"][:400]
        chex.assert_trees_all_equal(found, started)
    other = with_pieces(config, moved, odd_text, 11, steps=2)
    with pytest.raises(UserError, match=r"tokenizer\.added_pieces: 12 -> 11"):
        Run(other, workdir)


def test_pieces_that_cannot_be_added(config, base, odd_text, tmp_path):
    with pytest.raises(UserError, match=r"added_pieces is 9999, but.*only enough for \d+") as found:
        Run(with_pieces(config, base, odd_text, 9999), tmp_path / "run")
    most = int(str(found.value).split("use at most ")[1].split(",")[0])
    with Run(with_pieces(config, base, odd_text, most), tmp_path / "run") as run:
        assert run.config.tokenizer.vocabulary_size == 400 + most
    alone = with_pieces(config, base, odd_text, 5, start_from=None)
    with pytest.raises(UserError, match=r"added_pieces is 5, but there is no other run"):
        Run(alone, tmp_path / "alone")


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
