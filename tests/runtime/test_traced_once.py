"""Functions whose shapes and results come from one trace."""

import dataclasses

import jax
import numpy as np

from flax_transformer.config import MeshConfig
from flax_transformer.parallel.sharding import build_mesh, constrain_rows, on_mesh
from flax_transformer.runtime.traced_once import TracedOnce


def test_shapes_and_results_come_from_one_trace_on_no_mesh(small_config):
    traces = []

    @TracedOnce
    def draw(config, key):
        traces.append(config)
        return {"drawn": constrain_rows(jax.random.normal(key, (8, config.model.d_ff)))}

    mesh = build_mesh(MeshConfig(data=8))
    on_eight = on_mesh(mesh, lambda key: draw.shapes(small_config))(None)
    assert on_eight["drawn"].shape == (8, 32)
    for seed in (0, 1):
        key = jax.random.key(seed)
        expected = np.array(jax.random.normal(key, (8, 32)))
        for result in (draw(small_config, key), jax.jit(draw, static_argnums=0)(small_config, key)):
            np.testing.assert_array_equal(result["drawn"], expected)
            assert len(result["drawn"].sharding.device_set) == 1
    assert traces == [small_config]
    wider = dataclasses.replace(small_config.model, d_ff=64)
    other = dataclasses.replace(small_config, model=wider)
    assert draw.shapes(other)["drawn"].shape == (8, 64)
    assert traces == [small_config, other]
