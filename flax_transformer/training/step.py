"""One step of training and one of validation: pure functions, and how they are compiled."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.models import build_model
from flax_transformer.ops.cross_entropy import LossSums
from flax_transformer.ops.kernels import ops_for
from flax_transformer.parallel.sharding import on_mesh, replicated
from flax_transformer.runtime.compiler_options import step_options
from flax_transformer.training.optimizer import build_optimizer
from flax_transformer.training.state import TrainState, all_finite
from flax_transformer.training.teacher_forcing import teacher_forcing_ratio


def train_step(
    config: Config, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Updates the parameters by the mean gradient over all target tokens of `batch`.

    Returns the new state and its metrics: sums over tokens (see `LossSums`), the gradient's global
    norm before clipping, and whether all new parameters are finite.
    """
    gradients, sums = mean_gradient(config, state, batch, key)
    updates, optimizer_state = build_optimizer(config).update(
        gradients, state.optimizer_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    metrics = sums._asdict() | {
        "gradient_norm": optax.tree.norm(gradients),
        "parameters_finite": all_finite(params),
    }
    return TrainState(state.step + 1, params, optimizer_state), metrics


def mean_gradient(
    config: Config, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[Any, LossSums]:
    """Returns the gradient of the mean loss over all target tokens of `batch`, and the sums.

    Dropout draws from `key` folded with the step. With `training.accumulation_steps` the rows take
    turns, and their gradients are added up.
    """
    key = jax.random.fold_in(key, state.step)
    teacher_forcing = teacher_forcing_ratio(config.training, state.step)

    def loss_of(params, part: Batch, part_key: jax.Array):
        sums = loss_sums(config, params, part, part_key, teacher_forcing)
        return sums.loss, sums

    gradient = functools.partial(jax.grad(loss_of, has_aux=True), state.params)
    parts = config.training.accumulation_steps
    if parts == 1:
        gradients, sums = gradient(batch, key)
    else:

        def add_part(total, indexed):
            index, part = indexed
            new = gradient(part, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, new), None

        no_sums = LossSums(*[jnp.zeros(())] * len(LossSums._fields))
        zeros = jax.tree.map(jnp.zeros_like, state.params), no_sums
        indexed = jnp.arange(parts), jax.tree.map(functools.partial(_split_rows, parts), batch)
        (gradients, sums), _ = jax.lax.scan(add_part, zeros, indexed)
    return jax.tree.map(lambda g: g / jnp.maximum(sums.tokens, 1), gradients), sums


def _split_rows(parts: int, x: jax.Array) -> jax.Array:
    """Splits (b,...) into (parts,b/parts,...): row r goes to part r modulo `parts`, so that every
    device has its share of each."""
    return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)


def loss_sums(
    config: Config,
    params,
    batch: Batch,
    key: jax.Array | None,
    teacher_forcing: jax.Array | None = None,
) -> LossSums:
    """Sums the loss over the target tokens of a packed batch.

    key              of dropout; without one there is no dropout
    teacher_forcing  () share of true tokens that the decoder is fed; by default all

    What the model itself adds to the loss, under "losses", is a sum over tokens too.
    """
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    variables = {"params": params}
    rngs = None if key is None else {"dropout": key}
    inputs = (batch,) if teacher_forcing is None else (batch, teacher_forcing)
    features: Any
    features, added = model.apply(variables, *inputs, rngs=rngs, mutable=["losses"])
    table: Any = model.apply(variables, method="output_table")
    sums = ops_for(model.config).cross_entropy(
        features,
        table,
        batch.target_outputs,
        (batch.target_segments > 0).astype(jnp.float32),
        config.training.label_smoothing,
    )
    return sums._replace(loss=sum(jax.tree.leaves(added), start=sums.loss))


def validation_step(config: Config, params, batch: Batch) -> LossSums:
    """Sums the loss over one packed batch, without dropout."""
    return loss_sums(config, params, batch, None)


def jit_train_step(config: Config, mesh: jax.sharding.Mesh, state: TrainState) -> Any:
    """Returns `train_step` as a run compiles it: the state is donated, and lies as `state` does.

    `state` may be arrays or the descriptions that `abstract_state` gives: a dry run compiles from
    the latter what training compiles from the former.
    """
    return jax.jit(
        functools.partial(on_mesh(mesh, train_step), config),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), replicated(mesh)),
        compiler_options=step_options(mesh.devices.flat[0].platform),
    )


def jit_validation_step(config: Config, mesh: jax.sharding.Mesh) -> Any:
    """Returns `validation_step` on the devices of `mesh`."""
    return jax.jit(functools.partial(on_mesh(mesh, validation_step), config))
