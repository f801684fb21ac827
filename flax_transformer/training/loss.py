"""Cross entropy with label smoothing (Section 5.4), a few positions at a time."""

import functools
import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from flax_transformer.models.contraction import contract
from flax_transformer.sharding import BATCH_AXES

# Logits of one chunk: small enough for a CPU's cache, large enough to keep a matrix unit busy.
_CHUNK_BYTES = 16 * 2**20


class LossSums(NamedTuple):
    """Sums over the tokens of a batch, float32 scalars; divide by `tokens` for means."""

    loss: jax.Array
    """Cross entropy against the smoothed labels, in nats: what training minimises."""
    nll: jax.Array
    """Negative log likelihood of the true tokens, in nats: exp of its mean is the perplexity."""
    correct: jax.Array
    """Tokens to which the model gives the highest probability."""
    tokens: jax.Array


def smoothed_cross_entropy(
    features: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    label_smoothing: float,
    dtype,
) -> LossSums:
    """Sums of the loss of `features` (b,t,d) whose logits are features . table^T, table (v,d).

    `targets` (b,t) int32, `weights` (b,t) 1 for tokens and 0 for padding. The logits of the
    whole batch, the largest array of a training step, are never in memory at once: the loss goes
    through the sequence in chunks, and computes each chunk's gradient while its logits are there.
    """
    dims = chex.Dimensions(
        b=targets.shape[0], t=targets.shape[1], d=features.shape[2], v=table.shape[0]
    )
    chex.assert_shape(features, dims["btd"])
    chex.assert_shape(table, dims["vd"])
    chex.assert_shape([targets, weights], dims["bt"])
    sums = functools.partial(_sums, label_smoothing, jnp.dtype(dtype))
    mesh = jax.sharding.get_abstract_mesh()
    if math.prod(mesh.shape[axis] for axis in BATCH_AXES if axis in mesh.auto_axes) == 1:
        return jax.tree.map(jnp.sum, sums(table, features, targets, weights))
    # Every device adds up its own rows, and the gradient of the table travels once: left to
    # itself, XLA would sum it over all devices behind every chunk.
    rows = PartitionSpec(BATCH_AXES)
    sums_of_rows = jax.shard_map(
        sums,
        mesh=mesh,
        in_specs=(PartitionSpec(), rows, rows, rows),
        out_specs=rows,
        axis_names=set(BATCH_AXES),
        check_vma=False,
    )
    return jax.tree.map(jnp.sum, sums_of_rows(table, features, targets, weights))


def _sums(label_smoothing, dtype, table, features, targets, weights) -> LossSums:
    """The sums over some rows, each of shape (1,)."""
    (b, t), v = targets.shape, table.shape[0]
    chunk = _chunk_length(b, t, v)
    sums = _chunked(features, table, targets, weights, (label_smoothing, dtype, chunk))
    return jax.tree.map(lambda sum_: sum_[None], sums)


def _chunk_length(b: int, t: int, v: int) -> int:
    """The longest divisor of `t` whose logits stay within a chunk, at least 1."""
    fitting = max(1, _CHUNK_BYTES // (4 * b * v))
    return max(length for length in range(1, t + 1) if t % length == 0 and length <= fitting)


def _chunk_sums(features, table, targets, weights, settings) -> tuple[jax.Array, LossSums]:
    """The loss of one chunk, and its sums."""
    label_smoothing, dtype, _ = settings
    logits = contract("btd,vd->btv", features, table, dtype, jnp.float32)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    # Against smoothed labels (1 - e) one_hot + e / v, as optax.smooth_labels makes them, the
    # cross entropy is linear in the logits but for the normaliser, which nll already holds.
    true_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    loss = nll + label_smoothing * (true_logits - logits.mean(axis=-1))
    sums = LossSums(
        loss=(loss * weights).sum(),
        nll=(nll * weights).sum(),
        correct=((true_logits >= logits.max(axis=-1)) * weights).sum(),
        tokens=weights.sum().astype(jnp.float32),
    )
    return sums.loss, sums


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _chunked(features, table, targets, weights, settings) -> LossSums:
    def add_chunk(total, chunk):
        chunk_features, chunk_targets, chunk_weights = chunk
        _, sums = _chunk_sums(chunk_features, table, chunk_targets, chunk_weights, settings)
        return jax.tree.map(jnp.add, total, sums), None

    chunks = _split((features, targets, weights), settings[2])
    return jax.lax.scan(add_chunk, _no_sums(), chunks)[0]


def _chunked_forward(features, table, targets, weights, settings):
    gradient = jax.grad(_chunk_sums, argnums=(0, 1), has_aux=True)

    def add_chunk(carry, chunk):
        total, table_gradient = carry
        chunk_features, chunk_targets, chunk_weights = chunk
        (of_features, of_table), sums = gradient(
            chunk_features, table, chunk_targets, chunk_weights, settings
        )
        return (jax.tree.map(jnp.add, total, sums), table_gradient + of_table), of_features

    chunks = _split((features, targets, weights), settings[2])
    carry = (_no_sums(), jnp.zeros_like(table))
    (total, of_table), of_features = jax.lax.scan(add_chunk, carry, chunks)
    of_features = jnp.moveaxis(of_features, 0, 1).reshape(features.shape)
    return total, (of_features, of_table)


def _chunked_backward(settings, gradients, of_sums: LossSums):
    # Only the loss is differentiated; the other sums are for reading.
    scaled = jax.tree.map(lambda g: (g * of_sums.loss).astype(g.dtype), gradients)
    return (*scaled, None, None)


_chunked.defvjp(_chunked_forward, _chunked_backward)


def _no_sums() -> LossSums:
    return LossSums(*(jnp.zeros((), jnp.float32) for _ in LossSums._fields))


def _split(arrays, chunk: int):
    """Cuts axis t of every (b,t,...) into chunks, (t/chunk, b, chunk, ...); rows stay whole, as
    they may be split over devices."""

    def split(x):
        b, t, *rest = x.shape
        return jnp.moveaxis(x.reshape(b, t // chunk, chunk, *rest), 1, 0)

    return jax.tree.map(split, arrays)
