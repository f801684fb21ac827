"""Cross entropy with label smoothing (Section 5.4), whose logits are never in memory as a whole.

Letters: b batch, t target position, n = b t tokens, d model width, v vocabulary.
The logits of a batch would be the largest array of a training step. On a TPU and on a GPU kernels
compute them block by block (see `cross_entropy_tpu` and `cross_entropy_gpu`); elsewhere the loss
goes through the tokens in chunks. Either way the gradient is computed along with the loss, while
the logits are at hand. Every device does so for its own rows and its own shard of the vocabulary.
"""

import functools
import importlib
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from flax_transformer.ops.einsum import einsum, einsum_reference
from flax_transformer.parallel import collectives, sharding

# Logits of one chunk: small enough for a CPU's cache, large enough to keep a matrix unit busy.
_CHUNK_BYTES = {"cpu": 16 * 2**20, "gpu": 512 * 2**20, "tpu": 512 * 2**20}

_KERNELS = {"tpu": "cross_entropy_tpu", "gpu": "cross_entropy_gpu"}
"""Modules, loaded where they are used: Pallas takes long to load."""

_WORDS = ("model",)  # the mesh axis that splits the vocabulary
_ROWS, _TABLE = PartitionSpec(sharding.BATCH_AXES), PartitionSpec(_WORDS)


class LossSums(NamedTuple):
    """Sums over the tokens of a batch, float32 scalars; divide by `tokens` for means."""

    loss: jax.Array
    """Cross entropy against the smoothed labels, in nats: what training minimises."""
    nll: jax.Array
    """Negative log likelihood of the true tokens, in nats: exp of its mean is the perplexity."""
    correct: jax.Array
    """Tokens to which the model gives the highest probability."""
    tokens: jax.Array


def cross_entropy_reference(
    features: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    label_smoothing: float,
    dtype,
) -> LossSums:
    """Computes `cross_entropy` in plain lines."""
    logits = einsum_reference("btd,vd->btv", features, table, dtype, jnp.float32)
    log_probabilities = jax.nn.log_softmax(logits)  # btv
    labels = optax.smooth_labels(jax.nn.one_hot(targets, len(table)), label_smoothing)  # btv
    true = jnp.take_along_axis(logits, targets[..., None], axis=2)[..., 0]  # bt
    losses = LossSums(
        loss=-(labels * log_probabilities).sum(axis=2),
        nll=jax.nn.logsumexp(logits, axis=2) - true,
        correct=(true >= logits.max(axis=2)).astype(jnp.float32),
        tokens=jnp.ones_like(true),
    )
    return jax.tree.map(lambda each: (each * weights).sum(), losses)


def cross_entropy(
    features: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    label_smoothing: float,
    dtype,
) -> LossSums:
    """Sums the loss of tokens whose logits are features . table^T.

    Replaces (`cross_entropy_reference`, which also sums the rest of `LossSums`):

        logits = einsum("btd,vd->btv", features, table)
        labels = optax.smooth_labels(jax.nn.one_hot(targets, v), label_smoothing)
        loss = -(labels * jax.nn.log_softmax(logits)).sum(axis=2)
        (loss * weights).sum()

    features  (b,t,d)
    table     (v,d)
    targets   (b,t) int32
    weights   (b,t), 1 for tokens and 0 for padding

    Against smoothed labels (1 - e) one_hot + e / v a token's cross entropy is
    log(sum(exp(logits))) - (1 - e) logit_of_target - e mean(logits). Only `loss` has a gradient.
    """
    dims = chex.Dimensions(
        b=targets.shape[0], t=targets.shape[1], d=features.shape[2], v=table.shape[0]
    )
    chex.assert_shape(features, dims["btd"])
    chex.assert_shape(table, dims["vd"])
    chex.assert_shape([targets, weights], dims["bt"])
    settings = _Settings(label_smoothing, jnp.dtype(dtype), dims.v)
    return _loss(features, table, targets, weights, settings)


class _Settings(NamedTuple):
    label_smoothing: float
    dtype: jnp.dtype
    vocabulary_size: int


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _loss(features, table, targets, weights, settings: _Settings) -> LossSums:
    run = functools.partial(_on_device, settings, False)
    specs = (_ROWS, _TABLE, _ROWS, _ROWS)
    sums, _ = collectives.local_shard_map(run, specs, (PartitionSpec(), ()))(
        features, table, targets, weights
    )
    return sums


def _loss_and_gradients(features, table, targets, weights, settings: _Settings):
    run = functools.partial(_on_device, settings, True)
    specs = (_ROWS, _TABLE, _ROWS, _ROWS)
    return collectives.local_shard_map(run, specs, (PartitionSpec(), (_ROWS, _TABLE)))(
        features, table, targets, weights
    )


def _scale_gradients(settings, gradients, dsums: LossSums):
    # Only the loss is differentiated; the other sums are for reading.
    scaled = jax.tree.map(lambda g: (g * dsums.loss).astype(g.dtype), gradients)
    return (*scaled, None, None)


_loss.defvjp(_loss_and_gradients, _scale_gradients)


class _Tokens(NamedTuple):
    """A device's tokens, or a chunk of them: features (n,d), targets (n,), weights (n,)."""

    features: jax.Array
    targets: jax.Array
    """Counted from the first word of the device's shard of the table."""
    weights: jax.Array


@jax.named_scope("cross_entropy")
def _on_device(settings: _Settings, differentiate: bool, features, table, targets, weights):
    """Returns sums over all devices, and this one's gradients of features and table if asked."""
    b, t, d = features.shape
    first_word = collectives.index_along("model") * table.shape[0]
    tokens = _Tokens(
        features.reshape(b * t, d), (targets - first_word).reshape(-1), weights.reshape(-1)
    )
    name = _KERNELS.get(collectives.platform())
    kernels = name and importlib.import_module(f"flax_transformer.ops.{name}")
    if kernels and settings.dtype == jnp.bfloat16 and kernels.fits(tokens.features):
        by_kernels = _by_tpu_kernels if collectives.platform() == "tpu" else _by_gpu_kernels
        sums, gradients = by_kernels(kernels, settings, differentiate, tokens, table)
    else:
        sums, gradients = _by_chunks(settings, differentiate, tokens, table)
    sums = jax.tree.map(lambda x: collectives.sum_over(sharding.BATCH_AXES, x), sums)
    if differentiate:
        dfeatures = collectives.sum_over(_WORDS, gradients[0]).reshape(features.shape)
        dtable = collectives.sum_over(sharding.BATCH_AXES, gradients[1])
        gradients = dfeatures.astype(features.dtype), dtable.astype(table.dtype)
    return sums, gradients


def _by_tpu_kernels(
    kernels: Any, settings: _Settings, differentiate: bool, tokens: _Tokens, table: jax.Array
):
    features, table = tokens.features.astype(settings.dtype), table.astype(settings.dtype)
    found = _over_all_words(*kernels.statistics(features, table, tokens.targets))
    sums = _sums(settings, tokens, table, found)
    if not differentiate:
        return sums, ()
    return sums, kernels.gradients(
        features, table, tokens.targets, found.normalizer, tokens.weights, _shares(settings)
    )


def _by_gpu_kernels(
    kernels: Any, settings: _Settings, differentiate: bool, tokens: _Tokens, table: jax.Array
):
    tokens = tokens._replace(features=tokens.features.astype(settings.dtype))
    num_words, table = len(table), kernels.filled(table.astype(settings.dtype))

    def add_chunk(carry, chunk: _Tokens):
        true = collectives.sum_over(_WORDS, kernels.target_logits(*chunk[:2], table))
        others = kernels.other_words(*chunk[:2], table, num_words, true, differentiate)
        exp_sum = 1 + collectives.sum_over(_WORDS, others.exp_sum)
        best = collectives.maximum_over(_WORDS, others.maximum) <= 0
        sums = _sums(settings, chunk, table, _OfTokens(true + jnp.log(exp_sum), true, best))
        dfeatures, dtable = (), ()
        if differentiate:
            dfeatures, dtable = kernels.gradients(
                *chunk, table, others.exponentials, exp_sum, _shares(settings)
            )
        return jax.tree.map(jnp.add, carry, (sums, dtable)), dfeatures

    n, d = tokens.features.shape
    count = kernels.chunks(n, len(table)) if differentiate else 1
    chunks = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), tokens)
    start = (_nothing(), jnp.zeros(table.shape, jnp.float32) if differentiate else ())
    (sums, dtable), dfeatures = jax.lax.scan(add_chunk, start, chunks)
    return sums, (dfeatures.reshape(n, d), dtable[:num_words]) if differentiate else ()


def _by_chunks(settings: _Settings, differentiate: bool, tokens: _Tokens, table):
    def add_chunk(carry, chunk: tuple[_Tokens, jax.Array | None]):
        sums, dfeatures, dtable = _chunk(settings, differentiate, *chunk, table)
        return jax.tree.map(jnp.add, carry, (sums, dtable)), dfeatures

    n = tokens.targets.shape[0]
    length = _chunk_length(n, table.shape[0])
    missing = -n % length  # filled up with tokens that have no weight

    def split(x: jax.Array) -> jax.Array:
        filled = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else x
        return filled.reshape(-1, length, *x.shape[1:])

    chunks = jax.tree.map(split, tokens)
    # XLA's CPU backend has no bfloat16 product over the first axis of its left operand, and would
    # convert both operands to float32. A loop hides from it that this one was transposed. Without a
    # loop it would transpose it back, and then lack the product.
    transposed = jnp.swapaxes(chunks.features.astype(settings.dtype), 1, 2) if length < n else None
    dtable: Any = jnp.zeros(table.shape[::-1], jnp.float32) if differentiate else ()
    start = (_nothing(), dtable)
    (sums, dtable), dfeatures = jax.lax.scan(add_chunk, start, (chunks, transposed))
    if not differentiate:
        return sums, ()
    return sums, (dfeatures.reshape(-1, tokens.features.shape[1])[:n], dtable.T)


def _nothing() -> LossSums:
    return LossSums(*(jnp.zeros((), jnp.float32) for _ in LossSums._fields))


def _chunk_length(n: int, v: int) -> int:
    """Returns how many tokens make a chunk, whose logits stay within its size.

    The largest divisor of `n` tokens, which copies nothing, unless it makes more than twice as many
    chunks as are needed.
    """
    fitting = max(1, _CHUNK_BYTES[collectives.platform()] // (4 * v))
    needed = -(-n // fitting)
    counts = range(needed, 2 * needed + 1)
    return -(-n // next((count for count in counts if n % count == 0), needed))


def _chunk(settings: _Settings, differentiate: bool, tokens: _Tokens, transposed, table):
    """Returns sums over one chunk, and its gradients of features (n,d) and table (d,v).

    transposed  the features (d,n), where they are at hand
    """
    dtype = settings.dtype
    logits = einsum("nd,vd->nv", tokens.features, table, dtype, jnp.float32)
    maximum = logits.max(axis=1)
    exponentials = jnp.exp(logits - maximum[:, None])
    # Targets in another device's shard of the vocabulary count as 0 here.
    here = (tokens.targets >= 0) & (tokens.targets < table.shape[0])
    true = jnp.take_along_axis(logits, tokens.targets[:, None], axis=1, mode="clip")[:, 0]
    true = jnp.where(here, true, 0.0)
    found = _over_all_words(maximum, exponentials.sum(axis=1), true)
    sums = _sums(settings, tokens, table, found)
    if not differentiate:
        return sums, (), ()
    target_share, every_word_share = _shares(settings)
    word = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    expected = jnp.where(word == tokens.targets[:, None], target_share, 0.0) + every_word_share
    probabilities = exponentials * jnp.exp(maximum - found.normalizer)[:, None]
    dlogits = (probabilities - expected) * tokens.weights[:, None]
    dfeatures = einsum("nv,vd->nd", dlogits, table, dtype, jnp.float32)
    if transposed is None:
        dtable = einsum("nd,nv->dv", tokens.features, dlogits, dtype, jnp.float32)
    else:
        dtable = einsum("dn,nv->dv", transposed, dlogits, dtype, jnp.float32)
    return sums, dfeatures, dtable


def _shares(settings: _Settings) -> tuple[float, float]:
    """Returns what smoothed labels give the target beyond the others, and what every word."""
    smoothing = settings.label_smoothing
    return 1 - smoothing, smoothing / settings.vocabulary_size


class _OfTokens(NamedTuple):
    """What the loss needs to know of each token's logits, over the whole vocabulary: (n,) each."""

    normalizer: jax.Array
    """log(sum(exp(logits)))"""
    true: jax.Array
    """The target's logit."""
    best: jax.Array
    """Whether no other word's logit is higher."""


def _over_all_words(maximum: jax.Array, exp_sum: jax.Array, true: jax.Array) -> _OfTokens:
    """Puts together what the devices found, each in its shard of the vocabulary, (n,) each:

    maximum  the largest logit
    exp_sum  the sum of exp(logit - largest)
    true     the target's logit, 0 where it is not in this shard
    """
    highest = collectives.maximum_over(_WORDS, maximum)
    exp_sum = collectives.sum_over(_WORDS, exp_sum * jnp.exp(maximum - highest))
    true = collectives.sum_over(_WORDS, true)
    return _OfTokens(highest + jnp.log(exp_sum), true, true >= highest)


def _sums(settings: _Settings, tokens: _Tokens, table, found: _OfTokens) -> LossSums:
    """Sums the loss, given the table's shard of this device."""
    # The sum of the logits is the product with the sum of the table's rows.
    row_sum = table.astype(settings.dtype).astype(jnp.float32).sum(axis=0)
    features = tokens.features.astype(settings.dtype).astype(jnp.float32)
    logit_sum = collectives.sum_over(_WORDS, (features * row_sum[None]).sum(axis=1))
    target_share, every_word_share = _shares(settings)
    losses = LossSums(
        loss=found.normalizer - target_share * found.true - every_word_share * logit_sum,
        nll=found.normalizer - found.true,
        correct=found.best.astype(jnp.float32),
        tokens=jnp.ones_like(found.true),
    )
    return jax.tree.map(lambda x: (x * tokens.weights).sum(), losses)
