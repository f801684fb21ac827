"""The parameters of a model before training: drawn, or described without storing anything."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.models import build_model
from flax_transformer.parallel.sharding import named_sharding
from flax_transformer.runtime.traced_once import TracedOnce


@TracedOnce
def init_params(config: Config, key: jax.Array) -> Any:
    """Fresh parameters, boxed with the logical names of their axes."""
    # What the model computes on the way is thrown away: the plain lines are traced soonest.
    settings = dataclasses.replace(config.model, kernels="reference")
    model = build_model(settings, config.tokenizer.vocabulary_size)
    ids = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, Batch(*(ids for _ in Batch._fields)))["params"]


def abstract_params(config: Config, mesh: jax.sharding.Mesh) -> Any:
    """Shapes, types and shardings of the parameters, without computing or storing anything."""
    return describe(init_params.shapes(config), mesh)


def parameter_axes(config: Config) -> Any:
    """The logical names of the axes of every parameter, one `PartitionSpec` each."""
    return nn.get_partition_spec(init_params.shapes(config))


def describe(boxed: Any, mesh: jax.sharding.Mesh) -> Any:
    """`boxed` descriptions as they lie on `mesh`, where the names of their axes say."""

    def on_mesh(array, spec):
        sharding = named_sharding(mesh, tuple(spec), array.shape)
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)

    return jax.tree.map(on_mesh, nn.unbox(boxed), nn.get_partition_spec(boxed))
