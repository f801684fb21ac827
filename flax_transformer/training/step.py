"""One optimizer step, and one step of validation: pure functions, and how they are compiled."""

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
from flax_transformer.runtime.determinism import chosen_flags
from flax_transformer.training.optimizer import build_optimizer
from flax_transformer.training.state import TrainState, all_finite
from flax_transformer.training.teacher_forcing import teacher_forcing_ratio

_GPU_OPTIONS = {
    # cuBLAS adds the bias to its product before it writes it.
    "xla_gpu_enable_triton_gemm": False,
    # Products of one operand made into one: what comes of it is copied apart for cuDNN again.
    "xla_gpu_dot_merger_threshold_mb": 0,
}
"""Together they make a step of wmt_base 3% faster on an H100."""


def loss_sums(
    config: Config,
    params,
    batch: Batch,
    key: jax.Array | None,
    teacher_forcing: jax.Array | None = None,
) -> LossSums:
    """The loss of a packed batch; without a key there is no dropout.

    teacher_forcing: () share of true tokens fed to the decoder; by default all. What the model
    itself adds to the loss, under "losses", is a sum over tokens too.
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


def train_step(
    config: Config, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Updates the parameters by the mean gradient over all target tokens of `batch`.

    Metrics are sums over tokens (see `LossSums`), the gradient's global norm before clipping, and
    whether all new parameters are finite.
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
    """The gradient of the parameters, of the mean loss over all target tokens of `batch`.

    Dropout's key is `key` folded with the step.
    """
    key = jax.random.fold_in(key, state.step)
    teacher_forcing = teacher_forcing_ratio(config.training, state.step)

    def loss_of(params, part: Batch, part_key):
        sums = loss_sums(config, params, part, part_key, teacher_forcing)
        return sums.loss, sums

    gradient = jax.grad(loss_of, has_aux=True)
    parts = config.training.accumulation_steps
    if parts == 1:
        gradients, sums = gradient(state.params, batch, key)
    else:

        def add_part(total, indexed):
            index, part = indexed
            new = gradient(state.params, part, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, new), None

        # Row r goes to part r modulo `parts`, so that every device has its share of each.
        stacked = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch
        )
        zeros = (
            jax.tree.map(jnp.zeros_like, state.params),
            LossSums(*(jnp.zeros((), jnp.float32) for _ in LossSums._fields)),
        )
        (gradients, sums), _ = jax.lax.scan(add_part, zeros, (jnp.arange(parts), stacked))
    return jax.tree.map(lambda g: g / jnp.maximum(sums.tokens, 1), gradients), sums


def jit_train_step(config: Config, mesh: jax.sharding.Mesh, state: TrainState) -> Any:
    """`train_step` as a run compiles it: the state is donated, and lies as `state` does.

    `state` may be arrays or the descriptions that `abstract_state` gives: a dry run compiles from
    the latter what training compiles from the former.
    """
    return jax.jit(
        functools.partial(on_mesh(mesh, train_step), config),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), replicated(mesh)),
        compiler_options=_compiler_options(mesh.devices.flat[0].platform),
    )


def _compiler_options(platform: str) -> dict[str, Any] | None:
    """`_GPU_OPTIONS` on a GPU, but for those that the user has set in XLA_FLAGS."""
    if platform not in ("gpu", "cuda"):
        return None
    chosen = chosen_flags()
    return {name: value for name, value in _GPU_OPTIONS.items() if f"--{name}" not in chosen}


def validation_step(config: Config, params, batch: Batch) -> LossSums:
    """The sums of `LossSums` over one packed batch, without dropout."""
    return loss_sums(config, params, batch, None)


def jit_validation_step(config: Config, mesh: jax.sharding.Mesh) -> Any:
    """`validation_step` on the devices of `mesh`."""
    return jax.jit(functools.partial(on_mesh(mesh, validation_step), config))
