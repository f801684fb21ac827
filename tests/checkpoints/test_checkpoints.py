"""A bad checkpoint is never used, a good one never lost, and reading one disturbs nobody."""

import dataclasses
import os
import random
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.states import load_chosen, restore_newest_state, save_best, save_state

from flax_transformer.checkpoints import writing as checkpoints_module
from flax_transformer.checkpoints.files import (
    CHECKSUMS,
    DamagedCheckpointError,
    check_whole,
    list_steps,
    remove_unfinished,
)
from flax_transformer.checkpoints.progress import Progress
from flax_transformer.checkpoints.reading import CheckpointFolder
from flax_transformer.checkpoints.writing import Checkpoints
from flax_transformer.config import Config, MeshConfig, TrainingConfig
from flax_transformer.errors import CheckpointError, UserError
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.training.state import TrainState, create_state

PROGRESS = Progress(tokenizer="none")
ITEMS = ("params", "optimizer", "progress")


@pytest.fixture(scope="module")
def config(small_config: Config) -> Config:
    training = TrainingConfig(checkpoint_every=10, keep_checkpoints=3, patience=2)
    small = {"num_encoder_layers": 1, "num_decoder_layers": 1, "d_model": 8}
    model = dataclasses.replace(small_config.model, **small)
    return dataclasses.replace(small_config, training=training, model=model)


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return build_mesh(MeshConfig(data=1), jax.devices()[:1])


@pytest.fixture(scope="module")
def initial_state(config: Config, mesh: jax.sharding.Mesh) -> TrainState:
    return jax.device_get(create_state(config, mesh))


def state_of(initial_state: TrainState, step: int, value: float | None = None) -> TrainState:
    """A state in which all parameters are `value`, by default the step."""
    params = jax.tree.map(
        lambda leaf: jnp.full_like(leaf, step if value is None else value), initial_state.params
    )
    optimizer = jax.tree.map(jnp.asarray, initial_state.optimizer_state)
    return TrainState(jnp.int32(step), params, optimizer)


@pytest.fixture(scope="module")
def written(tmp_path_factory, config, initial_state) -> Path:
    """Three checkpoints, made once."""
    folder = tmp_path_factory.mktemp("written")
    write_steps(folder, config, initial_state, (10, 20, 30))
    return folder / "checkpoints"


def write_steps(workdir, config, initial_state, steps, progress=PROGRESS, value=None) -> None:
    checkpoints = Checkpoints(workdir, config)
    for step in steps:
        save_state(checkpoints, state_of(initial_state, step, value), progress)
    checkpoints.close()


@pytest.fixture
def write(tmp_path, config, initial_state, written):
    """Writes checkpoints of some steps."""

    def write(*steps: int, progress: Progress = PROGRESS, value: float | None = None) -> Path:
        directory = tmp_path / "checkpoints"
        if progress == PROGRESS and value is None and {10, 20, 30}.issuperset(steps):
            for step in steps:
                shutil.copytree(written / str(step), directory / str(step))
        else:
            write_steps(tmp_path, config, initial_state, steps, progress, value)
        return directory

    return write


@pytest.fixture
def restore(tmp_path, config, mesh):
    """The newest step, and what was said."""

    def restore() -> tuple[int, list[str]]:
        said: list[str] = []
        restored = restore_newest_state(tmp_path, config, mesh, said.append)
        assert restored is not None
        progress, step = restored.progress, restored.step
        assert progress == PROGRESS
        for leaf in jax.tree.leaves(restored.params):
            np.testing.assert_array_equal(leaf, step)
        return step, said

    return restore


@pytest.fixture
def load(tmp_path, config, mesh):
    """Parameters of the work directory, by the settings of decoding."""

    def load(**decoding):
        changed = dataclasses.replace(config.decoding, **decoding)
        return load_chosen(tmp_path, dataclasses.replace(config, decoding=changed), mesh)

    return load


def every_file(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.rglob("*")
    }


def test_regular_ones_and_the_newest_are_kept(write, tmp_path):
    directory = write(10, 15, 20, 30, 40, 43)
    assert list_steps(directory) == [20, 30, 40, 43]
    assert {path.name for path in directory.iterdir()} == {"20", "30", "40", "43"}
    write(50)
    assert list_steps(directory) == [30, 40, 50]


def test_no_flipped_bit_is_silent(write):
    """All of a small checkpoint's files, some bits of each."""
    checkpoint = write(10) / "10"
    assert check_whole(checkpoint, ITEMS)
    draw = random.Random(0)
    flips = 0
    for path in every_file(checkpoint):
        if path.parent == checkpoint and path.name != CHECKSUMS:
            continue  # Orbax's remarks, which nothing reads
        content = path.read_bytes()
        for _ in range(8):
            bit = draw.randrange(8 * len(content))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(DamagedCheckpointError):
                check_whole(checkpoint, ITEMS)
            flips += 1
        path.write_bytes(content)
    assert flips > 100 and check_whole(checkpoint, ITEMS)


def flip(checkpoint: Path) -> None:
    largest = max(every_file(checkpoint / "params"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 4
    largest.write_bytes(content)


def empty(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def halve(checkpoint: Path) -> None:
    for path in every_file(checkpoint)[::2]:
        path.unlink()


def cut_checksums(checkpoint: Path) -> None:
    os.truncate(checkpoint / CHECKSUMS, 100)


def put_a_pipe(checkpoint: Path) -> None:
    (checkpoint / "params" / "manifest.ocdbt").unlink()
    os.mkfifo(checkpoint / "params" / "manifest.ocdbt")


def put_a_file(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.write_text("not a folder")


def forget_checksums_too(checkpoint: Path) -> None:
    (checkpoint / CHECKSUMS).unlink()
    shutil.rmtree(checkpoint / "params" / "d")
    shutil.rmtree(checkpoint / "params" / "ocdbt.process_0")


DAMAGES = [
    flip, empty, halve, cut_checksums, put_a_pipe, put_a_file, forget_checksums_too,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_newest_sound_checkpoint_is_gone_on_from(write, restore, load, damage):
    directory = write(10, 20, 30)
    damage(directory / "30")
    loaded = load(average_checkpoints=2)
    assert loaded.steps == [20] and "30: " in loaded.notes[0]
    assert load(average_checkpoints=1).steps == [20]
    step, said = restore()
    assert step == 20
    assert len(said) == 1 and "checkpoint 30 is damaged" in said[0]
    # The damaged one is kept aside, where its step can be written again.
    assert list_steps(directory) == [10, 20] and (directory / "30.damaged").exists()
    write(30)
    assert restore() == (30, [])


def test_where_all_are_damaged_the_run_does_not_begin_anew(write, restore, load):
    directory = write(10, 20)
    for step in (10, 20):
        flip(directory / str(step))
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"damaged checkpoints only \(10: params/.*20: "):
            restore()
        with pytest.raises(CheckpointError, match="no sound checkpoint"):
            load()


def test_what_an_earlier_version_wrote_has_no_checksums(write, restore, load):
    directory = write(10)
    (directory / "10" / CHECKSUMS).unlink()
    assert restore() == (10, []) and load().steps == [10]


def test_what_an_earlier_version_did_not_remember_is_unknown(write, load, monkeypatch):
    def without_new_fields(progress):
        new = {"best_loss", "bleu_measure", "validated_step", "corpus", "data_changes"}
        return {k: v for k, v in dataclasses.asdict(progress).items() if k not in new}

    monkeypatch.setattr(checkpoints_module, "asdict", without_new_fields)
    best = {"best_bleu": 20.0, "validations_since_best": 1}
    write(10, progress=Progress(tokenizer="none", best_loss=2.0, bleu_measure="zh", **best))
    assert load().progress == Progress(tokenizer="none", **best)


def test_numbers_that_are_not_finite_are_damage(write, restore, load):
    write(10)
    write(20, value=np.nan)
    write(30, value=np.inf)
    loaded = load()
    assert loaded.steps == [10] and "not finite" in loaded.notes[0]
    step, said = restore()
    assert step == 10 and len(said) == 2


def test_left_over_folders_are_no_checkpoints_and_go(write, restore, tmp_path):
    directory = write(10, 20)
    for name in ("30.orbax-checkpoint-tmp", "9.removed"):
        shutil.copytree(directory / "20", directory / name)
    for name in ("copy of 20", "020", "-5", "²"):
        (directory / name).mkdir()
    assert restore() == (20, [])
    remove_unfinished(directory)
    assert {path.name for path in directory.iterdir()} == {
        "10", "20", "copy of 20", "020", "-5", "²",
    }  # fmt: skip
    remove_unfinished(tmp_path / "absent")


def test_one_best_is_kept_and_can_be_chosen(tmp_path, config, initial_state, write, load):
    checkpoints = Checkpoints(tmp_path, config)
    for step in (10, 20, 14):  # the last after going back to an older checkpoint
        save_best(checkpoints, state_of(initial_state, step), PROGRESS)
    checkpoints.close()
    assert list_steps(tmp_path / "best") == [14]
    write(10, 20, 30, 34)
    assert load(checkpoint="best").steps == [14]
    assert load(checkpoint="latest").steps == [34]
    assert load(checkpoint="average", average_checkpoints=2).steps == [30, 34]
    loaded = load(average_checkpoints=4)
    assert (loaded.choice, loaded.steps, loaded.notes) == ("average", [10, 20, 30, 34], [])
    for leaf in jax.tree.leaves(loaded.params):
        np.testing.assert_allclose(leaf, 23.5)
    for step in (14, 20):
        assert load(checkpoint=step).steps == [step]
    with pytest.raises(UserError, match=r"--checkpoint is 15, but .* only 10, 14, 20, 30, 34"):
        load(checkpoint=15)


def test_after_early_stopping_the_best_is_taken_and_said(
    tmp_path, config, initial_state, write, load
):
    checkpoints = Checkpoints(tmp_path, config)
    save_best(checkpoints, state_of(initial_state, 20), PROGRESS)
    checkpoints.close()
    write(20)
    write(30, progress=dataclasses.replace(PROGRESS, validations_since_best=1))
    assert load().choice == "average"
    write(40, progress=dataclasses.replace(PROGRESS, validations_since_best=2))
    loaded = load()
    assert (loaded.choice, loaded.steps) == ("best", [20])
    assert "no longer rose" in loaded.notes[0] and "step 20" in loaded.notes[0]
    assert load(checkpoint="average").steps == [20, 30, 40]


def test_reading_goes_on_while_training_removes(write, load, monkeypatch):
    directory = write(10, 20, 30)
    write(40)
    shutil.copytree(directory / "20", directory / "10")
    removed = []

    def remove_first(self, step, item, template, restore=CheckpointFolder.restore):
        """Removes what is about to be read, as training would, twice."""
        if len(removed) < 2:
            removed.append(step)
            shutil.rmtree(directory / str(step))
        return restore(self, step, item, template)

    monkeypatch.setattr(CheckpointFolder, "restore", remove_first)
    loaded = load(average_checkpoints=4)
    assert removed == [10, 20] and loaded.steps == [30, 40] and not loaded.notes


def test_reading_writes_nothing(write, load, tmp_path):
    directory = write(10, 20, 30)
    flip(directory / "30")
    (directory / "40.orbax-checkpoint-tmp").mkdir()
    before = snapshot(tmp_path)
    load()
    assert snapshot(tmp_path) == before


def test_a_checkpoint_is_written_again_when_the_run_remembers_more(
    tmp_path, config, mesh, initial_state
):
    checkpoints = Checkpoints(tmp_path, config)
    state = state_of(initial_state, 10)
    save_state(checkpoints, state, PROGRESS)
    save_state(checkpoints, state, PROGRESS)
    later = dataclasses.replace(PROGRESS, validated_step=10, data_changes=({"step": 5},))
    save_state(checkpoints, state, later)
    checkpoints.close()
    restored = restore_newest_state(tmp_path, config, mesh)
    assert restored is not None and restored.progress == later
    chex.assert_trees_all_equal(restored.params, state.params)


def test_one_failure_is_a_warning_and_two_are_the_end(tmp_path, config, initial_state, restore):
    said: list[str] = []
    checkpoints = Checkpoints(tmp_path, config, said.append)
    save_state(checkpoints, state_of(initial_state, 10), PROGRESS)
    assert checkpoints._finish(checkpoints._latest) is None
    shutil.move(tmp_path / "checkpoints", tmp_path / "moved")
    (tmp_path / "checkpoints").write_text("in the way")
    save_state(checkpoints, state_of(initial_state, 20), PROGRESS)
    assert len(said) == 1 and "could not be written to" in said[0]
    with pytest.raises(CheckpointError, match=r"could not be written to .*same command again"):
        save_state(checkpoints, state_of(initial_state, 30), PROGRESS)
    (tmp_path / "checkpoints").unlink()
    shutil.move(tmp_path / "moved", tmp_path / "checkpoints")
    save_state(checkpoints, state_of(initial_state, 40), PROGRESS)
    checkpoints.close()
    assert restore() == (40, [])


def test_an_error_in_the_background_is_the_end_at_the_end(
    tmp_path, config, initial_state, monkeypatch, capfd
):
    def fail(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints_module, "write_checksums", fail)
    checkpoints = Checkpoints(tmp_path, config, print)
    save_state(checkpoints, state_of(initial_state, 10), PROGRESS)
    with pytest.raises(CheckpointError, match=r"No space left on device.*none has been written"):
        checkpoints.close()
    assert list(tmp_path.glob("checkpoints/*")) == [], "what is unfinished takes room"
    assert "Traceback" not in capfd.readouterr().err


def test_writers_of_one_step_do_not_meet_each_other(tmp_path, config):
    checkpoints = Checkpoints(tmp_path, config)
    writers = (checkpoints._latest, checkpoints._best)
    names = {writer._checkpointer._barrier_sync_key_prefix for writer in writers}
    assert len(names) == 2 and "" not in names
    checkpoints.close()
