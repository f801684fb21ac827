"""One device or eight, split in any way: the same numbers."""

import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest
from support.samples import RECURRENT, recurrent
from support.states import restore_newest_state, save_state

from flax_transformer.batch import Batch
from flax_transformer.checkpoints.progress import Progress
from flax_transformer.checkpoints.writing import Checkpoints
from flax_transformer.config import MeshConfig, OptimizerConfig
from flax_transformer.errors import UserError
from flax_transformer.models import build_model
from flax_transformer.parallel.rows import check_rows, own_rows, place_rows
from flax_transformer.parallel.sharding import (
    AXES,
    BATCH_AXES,
    batch_sharding,
    build_mesh,
    named_sharding,
    on_mesh,
    replicated,
)
from flax_transformer.training.state import TrainState, abstract_state, create_state
from flax_transformer.training.step import train_step


def make_mesh(*sizes):
    config = MeshConfig(**dict(zip(AXES, sizes, strict=True)))
    return build_mesh(config, jax.devices()[: math.prod(sizes)])


def vary(config, **model):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


@pytest.fixture(scope="module")
def config(small_config):
    """With dropout, whose masks must not depend on the mesh, and with steps that are felt."""
    # Adam's first step is the sign of a gradient; a larger epsilon makes it continuous.
    optimizer = OptimizerConfig(warmup_steps=1, learning_rate_scale=0.1, epsilon=1e-2)
    return dataclasses.replace(vary(small_config, dropout=0.1), optimizer=optimizer)


def parameter_boxes(config):
    model = build_model(config.model, 304)
    batch = Batch(*(jax.ShapeDtypeStruct((1, 1), "int32") for _ in Batch._fields))
    params = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            params, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
        )
    }


def assert_axes_are_named(boxes):
    for path, leaf in boxes.items():
        assert isinstance(leaf, nn.LogicallyPartitioned), path
        assert len(leaf.names) == leaf.value.ndim, path
        assert None not in leaf.names, path
        named_sharding(make_mesh(1, 1, 1), leaf.names, leaf.value.shape)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_every_parameter_names_its_axes(small_config, norm, positions):
    boxes = parameter_boxes(vary(small_config, norm=norm, positions=positions))
    assert len(boxes) > 20
    assert_axes_are_named(boxes)
    for path, leaf in boxes.items():
        assert leaf.names[0] == "l" or not ("encoder'" in path or "decoder'" in path), path


@pytest.mark.parametrize("variant", RECURRENT)
def test_every_recurrent_parameter_names_its_axes(small_config, variant):
    boxes = parameter_boxes(recurrent(small_config, variant))
    assert len(boxes) > 10
    assert_axes_are_named(boxes)


def test_unknown_axis_is_refused():
    with pytest.raises(KeyError, match="z"):
        named_sharding(make_mesh(8, 1, 1), ("d", "z"), (16, 16))


def test_parameters_and_moments_really_are_split(config):
    state = create_state(config, make_mesh(2, 2, 2))
    shapes = {
        jax.tree_util.keystr(path): (leaf.shape, leaf.addressable_shards[0].data.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.optimizer_state))
    }
    expected = {
        "['embedding']['table']": ((304, 16), (152, 8)),
        "['self_attention']['query']": ((2, 16, 8, 2), (2, 8, 4, 2)),
        "['self_attention']['output']": ((2, 8, 2, 16), (2, 4, 2, 8)),
        "['feed_forward']['w1']": ((2, 16, 32), (2, 8, 16)),
        "['feed_forward']['b1']": ((2, 32), (2, 16)),
        "['feed_forward_residual']['norm']['scale']": ((2, 16), (2, 8)),
    }
    for name, shape in expected.items():
        found = [value for path, value in shapes.items() if path.endswith(name)]
        assert len(found) >= 3, f"parameter and both moments of {name}"
        assert set(found) == {shape}
    unsplit = [path for path, (whole, part) in shapes.items() if whole == part]
    assert all(path.endswith(".count") for path in unsplit), unsplit


class Program(NamedTuple):
    """A compiled training step, and what the compiler said."""

    compiled: jax.stages.Compiled
    shardings: TrainState
    mesh: jax.sharding.Mesh
    complaints: str

    def __call__(self, state, batch) -> tuple[TrainState, dict[str, jax.Array]]:
        """Also from a state on the host."""
        batch = place_rows(self.mesh, len(batch.source_ids), batch)
        for part in jax.tree.leaves(batch):
            rows = math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)
            assert part.addressable_shards[0].data.shape[0] == len(part) // rows
        key = jax.device_put(jax.random.key(0), replicated(self.mesh))
        return self.compiled(jax.device_put(state, self.shardings), batch, key)


@pytest.fixture(scope="module")
def program(config, packed_batch, tmp_path_factory):
    return programs(config, packed_batch, tmp_path_factory.mktemp("log"))


def programs(config, packed_batch, log_folder: Path) -> Callable[..., Program]:
    """The training step for a mesh of given sizes."""

    @functools.cache
    def compile_step(*sizes) -> Program:
        mesh = make_mesh(*sizes)
        state = abstract_state(config, mesh)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        step = jax.jit(
            functools.partial(on_mesh(mesh, train_step), config),
            out_shardings=(shardings, replicated(mesh)),
        )
        batch = place_rows(mesh, 8, packed_batch)
        key = jax.device_put(jax.random.key(0), replicated(mesh))
        log = log_folder / "-".join(map(str, sizes))
        with log.open("w") as file, redirected(2, file.fileno()):  # XLA writes past Python
            compiled = step.lower(state, batch, key).compile()
        return Program(compiled, shardings, mesh, log.read_text())

    return compile_step


@contextmanager
def redirected(descriptor: int, to: int):
    before = os.dup(descriptor)
    os.dup2(to, descriptor)
    try:
        yield
    finally:
        os.dup2(before, descriptor)
        os.close(before)


@pytest.fixture(scope="module")
def two_steps(program, initial_state, packed_batch):
    return steps_of(program, initial_state, packed_batch)


@pytest.fixture(scope="module")
def two_recurrent_steps(config, initial_recurrent, packed_batch, tmp_path_factory):
    """With coverage's loss, which must not depend on the mesh either."""
    recurrent_config, state = initial_recurrent
    model = dataclasses.replace(recurrent_config.model, dropout=0.1)
    config = dataclasses.replace(config, model=model)
    program = programs(config, packed_batch, tmp_path_factory.mktemp("log"))
    return steps_of(program, state, packed_batch)


def steps_of(program, initial_state, packed_batch):
    """Two training steps on a mesh: metrics of both, and the state after the first."""

    @functools.cache
    def run(*sizes):
        state, metrics = program(*sizes)(initial_state, packed_batch)
        _, second_metrics = program(*sizes)(state, packed_batch)
        return jax.device_get((state, metrics, second_metrics))

    return run


@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)])
def test_training_equals_that_on_one_device(sizes, two_steps):
    assert_same_steps(two_steps, sizes)


def test_recurrent_training_equals_that_on_one_device(two_recurrent_steps):
    assert_same_steps(two_recurrent_steps, (2, 2, 2))


def assert_same_steps(steps, sizes):
    state, *metrics = steps(*sizes)
    expected_state, *expected_metrics = steps(1, 1, 1)
    chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-4)
    # The first moment is a tenth of the gradient.
    chex.assert_trees_all_close(state, expected_state, rtol=1e-3, atol=1e-5)
    losses = [float(each["loss"]) for each in expected_metrics]
    assert losses[1] < 0.99 * losses[0], "the step is too small to test anything"


def collectives(program: Program) -> list[tuple[str, str, list[int]]]:
    """Kind, name of the operation and sizes of the results of all exchanges between devices."""
    found = re.findall(
        r"= (.*) (all-reduce|reduce-scatter|all-gather|all-to-all|collective-permute)\(.*?"
        r'op_name="([^"]*)"',
        program.compiled.as_text(),
    )
    return [
        (
            kind,
            name,
            [math.prod(map(int, dims.split(","))) for dims in re.findall(r"\[([\d,]+)\]", x)],
        )
        for x, kind, name in found
    ]


def test_fsdp_splits_the_state_and_gathers_parameters(program, config):
    """As the compiled program has it: what a device holds, and what travels."""
    split = program(1, 8, 1)
    whole = program(8, 1, 1)
    held, all_of_it = (
        each.compiled.memory_analysis().argument_size_in_bytes for each in (split, whole)
    )
    assert held < all_of_it / 7
    state = abstract_state(config, split.mesh)
    shardings = split.compiled.input_shardings[0][0]
    moments = [
        (math.prod(leaf.shape), math.prod(sharding.shard_shape(leaf.shape)))
        for leaf, sharding in zip(
            jax.tree.leaves(state.optimizer_state),
            jax.tree.leaves(shardings.optimizer_state),
            strict=True,
        )
    ]
    sizes, shares = map(sum, zip(*moments, strict=True))
    assert 7 * shares < sizes

    kinds = {kind for kind, _, _ in collectives(split)}
    assert "all-gather" in kinds, "parameters are brought together where they are used"
    assert kinds & {"all-reduce", "reduce-scatter"}, "gradients are summed"
    # Activations of a row (16 positions of width 16) stay where the row is.
    in_layers = re.compile("(en|de)code(r|/while)/")
    layers = [each for each in collectives(split) if in_layers.search(each[1])]
    gathered = {size for kind, _, sizes in layers if kind == "all-gather" for size in sizes}
    assert gathered == {16, 16 * 16, 16 * 32}, "norms and biases, attention, feed-forward"
    assert {kind for kind, _, _ in layers} <= {"all-gather", "all-reduce", "reduce-scatter"}
    forward = [each for each in layers if "transpose" not in each[1]]
    assert {kind for kind, _, _ in forward} == {"all-gather"}


def test_no_array_is_made_whole_for_want_of_a_better_way(program):
    assert "rematerialization" not in program(2, 2, 2).complaints
    assert "all-to-all" not in {kind for kind, _, _ in collectives(program(2, 2, 2))}


def test_a_run_moves_from_mesh_to_mesh(tmp_path, program, config, initial_state, packed_batch):
    """Its checkpoints restore exactly, and the steps after them are those of one device."""
    state = expected = initial_state
    for sizes in [(8, 1, 1), (2, 2, 2), (1, 1, 1)]:
        state, metrics = program(*sizes)(state, packed_batch)
        expected, expected_metrics = program(1, 1, 1)(expected, packed_batch)
        chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-4)
        checkpoints = Checkpoints(tmp_path, config)
        save_state(checkpoints, state, Progress(tokenizer="none"))
        checkpoints.close()
        saved = jax.device_get(state)
        for other in [(8, 1, 1), (2, 2, 2), (1, 1, 1)]:
            restored = restore_newest_state(tmp_path, config, program(*other).mesh)
            chex.assert_trees_all_equal(restored.params, saved.params)
            chex.assert_trees_all_equal(restored.optimizer_state, saved.optimizer_state)
            wanted = program(*other).shardings
            actual = jax.tree.map(
                lambda leaf: leaf.sharding,
                {"params": restored.params, "optimizer_state": restored.optimizer_state},
            )
            assert actual["params"] == wanted.params
            assert actual["optimizer_state"] == wanted.optimizer_state
    assert int(state.step) == 3


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_a_process_reads_the_rows_of_its_devices(sizes):
    mesh = make_mesh(*sizes)
    assert own_rows(mesh, 16) == slice(0, 16)
    rows = np.arange(32).reshape(16, 2)
    np.testing.assert_array_equal(place_rows(mesh, 16, {"rows": rows})["rows"], rows)


def test_axis_that_does_not_divide_is_named(small_config):
    for settings, sizes, message in [
        ({"num_heads": 4}, (1, 1, 8), "mesh.model is 8.* axis h"),
        ({"d_ff": 36}, (1, 1, 8), "mesh.model is 8.* axis f"),
        ({"d_model": 12, "num_heads": 4}, (1, 8, 1), "mesh.fsdp is 8.* axis d"),
    ]:
        with pytest.raises(UserError, match=message):
            abstract_state(vary(small_config, **settings), make_mesh(*sizes))


def test_mesh_must_use_the_devices():
    assert dict(build_mesh(MeshConfig()).shape) == {"data": 8, "fsdp": 1, "model": 1}
    assert dict(build_mesh(MeshConfig(fsdp=2, model=2)).shape) == {"data": 2, "fsdp": 2, "model": 2}
    for sizes in [(3, 1, 1), (-1, 3, 1), (-1, 16, 1), (2, 2, 1)]:
        with pytest.raises(UserError, match="number of devices, 8"):
            build_mesh(MeshConfig(**dict(zip(AXES, sizes, strict=True))))


def test_rows_must_divide(small_config):
    training = dataclasses.replace(small_config.training, accumulation_steps=4)
    accumulating = dataclasses.replace(small_config, training=training)
    check_rows(small_config, make_mesh(4, 2, 1))
    check_rows(accumulating, make_mesh(2, 1, 4))
    with pytest.raises(UserError, match=r"batch\.rows is 8.*multiple of 16"):
        check_rows(accumulating, make_mesh(2, 2, 2))
    nine = dataclasses.replace(small_config, batch=dataclasses.replace(small_config.batch, rows=9))
    with pytest.raises(UserError, match=r"batch\.rows is 9"):
        check_rows(nine, make_mesh(8, 1, 1))
    np.testing.assert_array_equal(batch_sharding(make_mesh(4, 2, 1)).shard_shape((8, 3)), (1, 3))
