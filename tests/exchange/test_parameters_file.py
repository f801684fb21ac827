"""What `export --format safetensors` writes is read like a work directory."""

import dataclasses
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.samples import recurrent
from support.states import save_untrained_run

import flax_transformer as ft
from flax_transformer.data.builtin import generate
from flax_transformer.errors import UserError
from flax_transformer.exchange.exporting import export_model
from flax_transformer.training.starting_point import take_vocabulary

LINES = ["The cat sleeps.", "", "a black dog sees the house"]


@pytest.fixture(scope="module", params=["transformer", "recurrent"])
def model(request, small_config, tmp_path_factory):
    config = small_config if request.param == "transformer" else recurrent(small_config, "dot")
    workdir = tmp_path_factory.mktemp("runs") / request.param
    workdir.mkdir()
    save_untrained_run(workdir, config, [text for pair in generate(400)["train"] for text in pair])
    return ft.load(workdir)


@pytest.fixture
def exported(model, tmp_path):
    export_model(model, tmp_path / "exported", "safetensors")
    return tmp_path / "exported"


def test_is_the_model_that_it_was_made_of(model, exported):
    again = ft.load(exported)
    assert (again.steps, again.choice, again.progress) == (
        model.steps,
        model.choice,
        model.progress,
    )
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    jax.tree.map(lambda one, other: one.sharding == other.sharding, again.params, model.params)
    assert again.translate(LINES) == model.translate(LINES)


@pytest.mark.parametrize("stored_as", ["bfloat16", "float16"])
def test_takes_half_the_bytes_in_a_shorter_type(model, tmp_path, stored_as):
    export_model(model, tmp_path / "half", "safetensors", stored_as)
    again, dtype = ft.load(tmp_path / "half"), np.dtype(getattr(ml_dtypes, stored_as, stored_as))
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype), model.params)
    jax.tree.map(
        lambda mine, one: np.testing.assert_array_equal(mine, one.astype(np.float32)),
        again.params,
        rounded,
    )
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    numbers = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert 2 * numbers < size < 2 * numbers + 10_000


def test_a_run_can_start_from_it(model, exported):
    training = dataclasses.replace(model.config.training, start_from=str(exported))
    config = dataclasses.replace(model.config, training=training)
    assert take_vocabulary(config, None).tokenizer == model.config.tokenizer


def test_has_no_other_checkpoints_to_choose(exported):
    assert ft.load(exported, checkpoint="average").choice == "average"
    with pytest.raises(UserError, match=r"--checkpoint is best, but .*holds one set"):
        ft.load(exported, checkpoint="best")


def test_checkpoints_come_first(model, exported, tmp_path):
    run = shutil.copytree(model.workdir, tmp_path / "run")
    shutil.copy(exported / "model.safetensors", run)
    (run / "model.safetensors").write_bytes(b"damaged")
    assert ft.load(run).steps == model.steps


def change(path, metadata=None, **tensors):
    from safetensors import safe_open

    found = load_file(path)
    with safe_open(path, "numpy") as file:
        about = file.metadata()
    save_file(found | tensors, path, about if metadata is None else metadata)


def first_of(path):
    return min(load_file(path).items())


@pytest.mark.parametrize("stored_as", ["float32", "bfloat16"])
def test_damage_ends_in_one_message(model, tmp_path, stored_as):
    folder = tmp_path / "exported"
    export_model(model, folder, "safetensors", None if stored_as == "float32" else stored_as)
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    name, tensor = first_of(path)
    nan = np.full_like(tensor, np.nan)
    for damage, message in (
        (lambda: path.write_bytes(whole[:-5]), "or damaged"),
        (lambda: path.write_bytes(b""), "or damaged"),
        (lambda: path.write_bytes(b"\xff" * 64), "or damaged"),
        (lambda: change(path, {"format": "pt"}), "not a file of parameters of this program"),
        (lambda: change(path, {"steps": "[]", "choice": "a", "progress": "[]"}), "or damaged"),
        (lambda: change(path, **{name: tensor[:-1]}), f"{name} has the shape"),
        (lambda: change(path, **{name: nan}), f"{name} .* must hold finite"),
        (lambda: change(path, **{name: tensor.astype(np.int32)}), f"{name} .int32. must hold"),
        (lambda: change(path, another=tensor), r"other parameters .* such as \['another'\]"),
    ):
        path.write_bytes(whole)
        damage()
        with pytest.raises(UserError, match=message):
            ft.load(folder)


def test_something_else_under_its_name_is_not_waited_for(exported):
    (exported / "model.safetensors").unlink()
    (exported / "model.safetensors").mkdir()
    with pytest.raises(UserError, match="holds no checkpoints"):
        ft.load(exported)
