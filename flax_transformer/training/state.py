"""What a training step changes: step, parameters and the optimizer's state."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from flax_transformer.config import Config
from flax_transformer.models.initialization import describe, init_params
from flax_transformer.runtime.traced_once import TracedOnce
from flax_transformer.training.optimizer import build_optimizer


class TrainState(NamedTuple):
    """All that training changes; the order of the data and dropout follow from `step`.

    step             () int32 optimizer steps done
    params           float32 arrays in the tree of the model
    optimizer_state  Adam's moments, each like `params`
    """

    step: jax.Array
    params: Any
    optimizer_state: optax.OptState


def create_state(config: Config, mesh: jax.sharding.Mesh) -> TrainState:
    """Draws the state before the first step; every device computes only its own shard."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    create = jax.jit(lambda key: nn.unbox(_initialize(config, key)), out_shardings=shardings)
    return create(jax.random.key(config.training.seed))


def abstract_state(config: Config, mesh: jax.sharding.Mesh) -> TrainState:
    """Describes shapes, types and shardings of the state; computes and stores nothing."""
    return describe(_initialize.shapes(config), mesh)


@TracedOnce
def _initialize(config: Config, key: jax.Array) -> TrainState:
    """Draws a fresh state; its arrays are boxed with the logical names of their axes."""
    params = init_params(config, key)
    return TrainState(jnp.zeros((), jnp.int32), params, build_optimizer(config).init(params))


def count_parameters(params: Any) -> int:
    """Counts the trained numbers."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def all_finite(tree: Any) -> jax.Array:
    """Returns whether no number in `tree` is infinite or not a number: () bool."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
