"""Which settings a work directory holds a run to, and from when on."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest
from support.states import save_state

from flax_transformer.checkpoints.writing import Checkpoints, Progress
from flax_transformer.config import (
    Builtin,
    Config,
    DecodingConfig,
    OptimizerConfig,
    TextFiles,
    TokenizerConfig,
    TrainingConfig,
    TransformerConfig,
)
from flax_transformer.config.json import config_to_dict, load_config, save_config
from flax_transformer.data.corpus import open_corpus
from flax_transformer.data.training_data import prepare_training_data
from flax_transformer.errors import UserError
from flax_transformer.training import run_settings
from flax_transformer.training.optimizer import learning_rate_schedule
from flax_transformer.training.run_settings import open_workdir
from flax_transformer.training.state import TrainState

FILES = TextFiles(
    directory="a", source_language="en", target_language="de", train=("train,weight=2", "web")
)
FREE = {
    "batch.read_ahead": 7, "data.directory": "b", "data.test": ("test", "other"), "mesh.data": 1,
    "mesh.fsdp": 2, "mesh.model": 2, "training.log_every": 1, "training.evaluate_every": 7,
    "training.validation_sentences": 7, "training.patience": 3, "training.bleu_tokenizer": "zh",
    "training.checkpoint_every": 7, "training.checkpoint_minutes": 2.5,
    "training.keep_checkpoints": 7, "training.steps": 70_000,
    "training.deterministic": True, "model.kernels": "reference",
    **{f"decoding.{name}": value for name, value in {
        "beam_size": 2, "length_normalization": "power", "length_penalty": 1, "checkpoint": "best",
        "coverage_penalty": 0.2, "extra_length": 7, "average_checkpoints": 2, "batch_tokens": 99,
        "max_source_length": 99, "split_sentences": False, "diversity_groups": 2,
        "diversity_strength": 0.7, "sampling": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9,
        "seed": 3, "min_length": 2, "no_repeat_ngram": 3, "forbidden": ("house",),
    }.items()},
}  # fmt: skip
TOGETHER = {"diversity_strength": {"diversity_groups": 2}} | {
    name: {"sampling": True} for name in ("temperature", "top_k", "top_p", "seed")
}
"""What settings need others for."""
BINDING = {
    "data.train": ("train", "web"), "data.validation": "other", "data.source_language": "fr",
    "tokenizer.added_pieces": 7,
    "tokenizer.dropout": 0.1, "tokenizer.vocabulary_size": 500, "tokenizer.samples": 3,
    "data.placeholders": 0.0, "data.concatenate": 0.1, "tokenizer.character_coverage": 0.999,
    "tokenizer.normalization": "nfkc", "batch.rows": 50, "batch.max_length_ratio": 3,
    "model.dropout": 0.2, "model.d_ff": 64, "model.compute_dtype": "float32",
    "optimizer.warmup_steps": 7, "optimizer.cooldown_steps": 7, "training.seed": 1,
    "training.label_smoothing": 0.2, "training.accumulation_steps": 2,
}  # fmt: skip


def changed(config: Config, setting: str, value) -> Config:
    section, _, field = setting.partition(".")
    others = TOGETHER.get(field, {}) if section == "decoding" else {}
    inner = dataclasses.replace(getattr(config, section), **others | {field: value})
    return dataclasses.replace(config, **{section: inner})


@pytest.fixture
def workdir(tmp_path):
    """Of a run that has begun and done nothing."""
    open_workdir(tmp_path / "run", Config(data=FILES))
    return tmp_path / "run"


def pretend_to_have_trained(workdir, *steps, folder="checkpoints"):
    (workdir / "tokenizer.model").touch()
    for step in steps:
        (workdir / folder / str(step)).mkdir(parents=True)


def test_nothing_binds_where_nothing_depends_on_it(workdir):
    (workdir / "checkpoints" / "5.orbax-checkpoint-tmp-17").mkdir(parents=True)
    (workdir / "checkpoints" / "lost+found").mkdir()
    for config in (Config(tokenizer=TokenizerConfig(vocabulary_size=8924)), Config(data=Builtin())):
        open_workdir(workdir, config)
        assert load_config(workdir / "config.json") == config


def test_the_advice_of_a_start_that_failed_can_be_followed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = Config(data=Builtin(num_pairs=300), tokenizer=TokenizerConfig(vocabulary_size=30_000))
    for _ in range(2):
        open_workdir(tmp_path / "run", config)
        try:
            prepare_training_data(open_corpus(config.data), config, tmp_path / "run")
        except UserError as error:
            fitting = int(str(error).split("use at most ")[1].split(",")[0])
            config = changed(config, "tokenizer.vocabulary_size", fitting)
    assert (tmp_path / "run" / "tokenizer.model").exists()


@pytest.mark.parametrize("setting", [*FREE, *BINDING])
def test_the_vocabulary_binds_what_it_was_learnt_from(workdir, setting):
    """But neither weights nor what training alone depends on."""
    (workdir / "tokenizer.model").touch()
    before, config = (
        Config(data=FILES),
        changed(Config(data=FILES), setting, (FREE | BINDING)[setting]),
    )
    if setting not in {
        "tokenizer.vocabulary_size", "tokenizer.normalization", "training.seed", "data.directory",
        "data.source_language", "tokenizer.character_coverage", "tokenizer.added_pieces",
    }:  # fmt: skip
        open_workdir(workdir, config)
        assert load_config(workdir / "config.json") == config != before
        return
    message = rf"tokenizer\.model was learned with other settings:\n  {setting}: .* -> .*\n.*delete"
    with pytest.raises(UserError, match=message):
        open_workdir(workdir, config)
    assert load_config(workdir / "config.json") == before
    (workdir / "tokenizer.model").unlink()
    open_workdir(workdir, config)


@pytest.mark.parametrize("train", [("train",), ("train", "web,tag=<bt>"), ("web", "train")])
def test_the_vocabulary_binds_the_text_and_the_tags(workdir, train):
    (workdir / "tokenizer.model").touch()
    with pytest.raises(UserError, match=r"data\.train: "):
        open_workdir(workdir, changed(Config(data=FILES), "data.train", train))


@pytest.mark.parametrize("folder", ["checkpoints", "best"])
@pytest.mark.parametrize("setting", BINDING)
def test_a_checkpoint_binds_what_parameters_depend_on(workdir, setting, folder):
    pretend_to_have_trained(workdir, 5, folder=folder)
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(UserError, match=rf"other settings:\n  {setting}: .* -> .*\nRestore them"):
        open_workdir(workdir, changed(Config(data=FILES), setting, BINDING[setting]))
    assert (workdir / "config.json").read_bytes() == before


@pytest.mark.parametrize("setting", FREE)
def test_what_changes_no_parameter_may_change(workdir, setting):
    pretend_to_have_trained(workdir, 5, 10)
    config = changed(Config(data=FILES), setting, FREE[setting])
    open_workdir(workdir, config)
    assert load_config(workdir / "config.json") == config != Config(data=FILES)


def test_every_other_setting_binds_a_run():
    """A new one does, until somebody has thought about it."""
    every = {
        f"{section}.{name}"
        for section, values in config_to_dict(Config(data=FILES)).items()
        for name in values
    }
    never = {name for name in every if run_settings._among(name, run_settings._NEVER_BIND)}
    assert never == FREE.keys() - {"training.steps"}
    assert BINDING.keys() < every - never


def test_another_kind_of_corpus_binds(workdir):
    pretend_to_have_trained(workdir, 5)
    with pytest.raises(UserError, match=r"data\.kind: TextFiles -> Builtin"):
        open_workdir(workdir, Config(data=Builtin()))


def with_steps(steps: int, cooldown: int = 20) -> Config:
    return Config(
        data=FILES,
        optimizer=OptimizerConfig(warmup_steps=10, cooldown_steps=cooldown),
        training=TrainingConfig(steps=steps),
    )


@pytest.mark.parametrize("old", [50, 60, 100])
@pytest.mark.parametrize("new", [40, 50, 60, 100])
@pytest.mark.parametrize("newest", [5, 20, 30, 31, 32, 41, 80])
def test_steps_may_change_as_long_as_no_rate_would(tmp_path, old, new, newest):
    if newest > old:
        return
    save_config(with_steps(old), tmp_path / "config.json")
    pretend_to_have_trained(tmp_path, 1, newest)
    schedules = [learning_rate_schedule(with_steps(steps)) for steps in (old, new)]
    same = np.array_equal(*(rate(np.arange(newest)) for rate in schedules))
    # The first update of the fall has the full rate still; so near its start a run is refused too.
    if old == new or (same and newest != min(old, new) - 20 + 1):
        open_workdir(tmp_path, with_steps(new))
        assert load_config(tmp_path / "config.json") == with_steps(new)
        return
    begin = min(old, new) - 20
    with pytest.raises(
        UserError,
        match=rf"training\.steps: {old} -> {new} \(with optimizer\.cooldown_steps 20 the learning "
        rf"rate falls from step {begin} on, and the run has come to {newest}\)\nRestore them",
    ):
        open_workdir(tmp_path, with_steps(new))


@pytest.mark.parametrize("new", [10, 100, 200])
def test_steps_may_be_any_without_a_cooldown(tmp_path, new):
    save_config(with_steps(100, cooldown=0), tmp_path / "config.json")
    pretend_to_have_trained(tmp_path, 90)
    open_workdir(tmp_path, with_steps(new, cooldown=0))
    assert load_config(tmp_path / "config.json").training.steps == new


def test_checkpoints_bind_as_the_library_writes_them(small_config, tmp_path):
    open_workdir(tmp_path, small_config)
    checkpoints = Checkpoints(tmp_path, small_config)
    other = changed(small_config, "model.d_ff", 64)
    open_workdir(tmp_path, other)
    open_workdir(tmp_path, small_config)
    leaves = {"leaf": np.zeros(2, np.float32)}
    save_state(checkpoints, TrainState(np.int32(5), leaves, leaves), Progress(tokenizer=""))
    checkpoints.close()
    with pytest.raises(UserError, match=r"model\.d_ff: 32 -> 64"):
        open_workdir(tmp_path, other)


@pytest.mark.parametrize(
    ("setting", "message"),
    [("model_type", "in Hugging Face's format"), ("kind", "cannot be read: kind is no setting")],
)
def test_a_folder_of_another_program_is_left_alone(tmp_path, setting, message):
    (tmp_path / "config.json").write_text(json.dumps({setting: "bert"}))
    with pytest.raises(UserError, match=rf"config\.json .*{message}"):
        open_workdir(tmp_path, Config())
    assert json.loads((tmp_path / "config.json").read_text()) == {setting: "bert"}


@pytest.mark.parametrize("name", ["n" * 300, "file/run", "loop"])
def test_a_folder_that_cannot_be_one(tmp_path, name):
    (tmp_path / "file").touch()
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    with pytest.raises(UserError, match="cannot be written"):
        open_workdir(tmp_path / name, Config())


def test_decoding_of_the_next_start_is_remembered(workdir):
    pretend_to_have_trained(workdir, 5)
    config = Config(data=FILES, decoding=DecodingConfig(checkpoint=4000))
    open_workdir(workdir, config)
    assert load_config(workdir / "config.json").decoding.checkpoint == 4000


def test_a_run_keeps_the_layers_a_turn_that_it_was_begun_with(tmp_path):
    """Also one of an earlier version, whose default was a number."""
    begun = dataclasses.replace(Config(), model=TransformerConfig(unroll_layers=1))
    open_workdir(tmp_path, begun)
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)

    def again(layers: int | None) -> Config:
        config = dataclasses.replace(Config(), model=TransformerConfig(unroll_layers=layers))
        return run_settings.settle(tmp_path, config, jax.devices()[0], pytest.fail)

    assert again(None).model.unroll_layers == 1
    assert again(2).model.unroll_layers == 2, "what the user asks for stands, and is refused"
    with pytest.raises(UserError, match=r"model\.unroll_layers: 1 -> 2"):
        open_workdir(tmp_path, dataclasses.replace(begun, model=TransformerConfig(unroll_layers=2)))
