"""One device or eight, split in any way: the same numbers."""

import dataclasses
import functools
import math

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest
from samples import RECURRENT, recurrent

from flax_transformer.config import ConfigError, MeshConfig, OptimizerConfig
from flax_transformer.data.packing import Batch
from flax_transformer.models import build_model
from flax_transformer.sharding import (
    AXES,
    batch_sharding,
    build_mesh,
    check_rows,
    named_sharding,
    replicated,
)
from flax_transformer.training.state import abstract_state, create_state
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
        "['feed_forward_residual']['norm']['norm']['scale']": ((2, 16), (2, 8)),
    }
    for name, shape in expected.items():
        found = [value for path, value in shapes.items() if path.endswith(name)]
        assert len(found) >= 3, f"parameter and both moments of {name}"
        assert set(found) == {shape}
    unsplit = [path for path, (whole, part) in shapes.items() if whole == part]
    assert all(path.endswith(".count") for path in unsplit), unsplit


@pytest.fixture(scope="module")
def two_steps(config, initial_state, packed_batch):
    return steps_on(config, initial_state, packed_batch)


@pytest.fixture(scope="module")
def two_recurrent_steps(config, initial_recurrent, packed_batch):
    """With coverage's loss, which must not depend on the mesh either."""
    recurrent_config, state = initial_recurrent
    model = dataclasses.replace(recurrent_config.model, dropout=0.1)
    return steps_on(dataclasses.replace(config, model=model), state, packed_batch)


def steps_on(config, initial_state, packed_batch):
    """Two training steps on a mesh: metrics of both, and the state behind the first."""

    @functools.cache
    def run(*sizes):
        mesh = make_mesh(*sizes)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
        step = jax.jit(
            functools.partial(train_step, config), out_shardings=(shardings, replicated(mesh))
        )
        batch = jax.device_put(packed_batch, batch_sharding(mesh))
        key = jax.device_put(jax.random.key(0), replicated(mesh))
        state, metrics = step(jax.device_put(initial_state, shardings), batch, key)
        _, second_metrics = step(state, batch, key)
        assert step._cache_size() == 1
        for part in jax.tree.leaves(batch):
            assert part.addressable_shards[0].data.shape[0] == 8 // math.prod(sizes[:2])
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


def test_axis_that_does_not_divide_is_named(small_config):
    for settings, sizes, message in [
        ({"num_heads": 4}, (1, 1, 8), "mesh.model is 8.* axis h"),
        ({"d_ff": 36}, (1, 1, 8), "mesh.model is 8.* axis f"),
        ({"d_model": 12, "num_heads": 4}, (1, 8, 1), "mesh.fsdp is 8.* axis d"),
    ]:
        with pytest.raises(ConfigError, match=message):
            abstract_state(vary(small_config, **settings), make_mesh(*sizes))


def test_mesh_must_use_the_devices():
    assert dict(build_mesh(MeshConfig()).shape) == {"data": 8, "fsdp": 1, "model": 1}
    assert dict(build_mesh(MeshConfig(fsdp=2, model=2)).shape) == {"data": 2, "fsdp": 2, "model": 2}
    for sizes in [(3, 1, 1), (-1, 3, 1), (-1, 16, 1), (2, 2, 1)]:
        with pytest.raises(ConfigError, match="8 devices"):
            build_mesh(MeshConfig(**dict(zip(AXES, sizes, strict=True))))


def test_rows_must_divide(small_config):
    training = dataclasses.replace(small_config.training, accumulation_steps=4)
    accumulating = dataclasses.replace(small_config, training=training)
    check_rows(small_config, make_mesh(4, 2, 1))
    check_rows(accumulating, make_mesh(2, 1, 4))
    with pytest.raises(ConfigError, match=r"batch\.rows is 8.*multiple of 16"):
        check_rows(accumulating, make_mesh(2, 2, 2))
    nine = dataclasses.replace(small_config, batch=dataclasses.replace(small_config.batch, rows=9))
    with pytest.raises(ConfigError, match=r"batch\.rows is 9"):
        check_rows(nine, make_mesh(8, 1, 1))
    np.testing.assert_array_equal(batch_sharding(make_mesh(4, 2, 1)).shard_shape((8, 3)), (1, 3))
