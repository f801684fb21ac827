"""Cross entropy over a large vocabulary as TPU kernels, which never write the logits to memory.

Letters: n tokens, d model width, v vocabulary.
Logits of 37,000 words in float32 are the largest arrays of a training step, and would be written
once and read four times. Here they live block by block in the chip's fast memory, and each of the
two gradients computes them again: this costs two more products, and almost no traffic.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from flax_transformer.ops.attention_tpu import KERNEL_BYTES, Described

_TOKENS = (1024, 512, 256, 128)  # per block: the largest that divides n and fits
_WORDS = 512
_NEVER = -1e30
_MAXIMUM, _EXP_SUM, _TRUE = range(3)  # rows of the statistics
_ROWS = 8  # of statistics, as a tile of memory has; three of them are used


def fits(features: Described) -> bool:
    """Returns whether the kernels take `features` (n,d)."""
    n, d = features.shape
    blocks = [_tokens(n, d, result) for result in ("statistics", "features", "table")]
    return d % 128 == 0 and None not in blocks


def _tokens(n: int, d: int, result: str) -> int | None:
    """Returns how many tokens make a block; None where not even the fewest divide `n` and fit."""
    for tokens in _TOKENS:
        if n % tokens == 0 and _bytes(tokens, d, result) <= KERNEL_BYTES:
            return tokens
    return None


def _bytes(tokens: int, d: int, result: str) -> int:
    """Returns the bytes that a kernel needs for a block of tokens: measured, an upper bound.

    Each array counts twice, since the next block is fetched meanwhile. What is added to the result,
    and the logits, come on top.
    """
    rows = {"statistics": 0, "features": tokens, "table": _WORDS}[result]
    arrays = 2 * (2 * d * (tokens + _WORDS) + 4 * d * rows + 4 * (_ROWS + 3) * tokens)
    return arrays + 4 * d * rows + 5 * _WORDS * tokens


def statistics(features, table, targets) -> list[jax.Array]:
    """Returns three statistics of each token's logits features . table^T, each (n,) float32.

    features  (n,d) bfloat16
    table     (v,d) bfloat16
    targets   (n,) int32, counted from the table's first row; they may lie outside of it
    results   the largest logit; sum(exp(logit - largest)); the target's logit, 0 if the target is
              not among these words
    """
    rows = _call(
        functools.partial(_statistics_kernel, table.shape[0]),
        (features, table, targets[None]),
        words_last=True,
        result="statistics",
    )
    return [rows[_MAXIMUM], rows[_EXP_SUM], rows[_TRUE]]


def gradients(
    features, table, targets, normalizer, weights, shares: tuple[float, float]
) -> tuple[jax.Array, jax.Array]:
    """Returns the loss' gradients of features (n,d) and table (v,d), in float32.

    normalizer  (n,), the logarithm of the sum of exp(logits) over the whole vocabulary
    weights     (n,), which scale the tokens' losses
    shares      the labels' probability of the target beyond other words', and that of every word
    """
    v = table.shape[0]
    arrays = (features, table, targets[None], normalizer[None], weights[None])
    dfeatures = functools.partial(_features_kernel, v, shares)
    dtable = functools.partial(_table_kernel, v, shares)
    return (
        _call(dfeatures, arrays, words_last=True, result="features"),
        _call(dtable, arrays, words_last=False, result="table")[:v],
    )


def _call(kernel, arrays, words_last: bool, result: str) -> jax.Array:
    """Runs `kernel` over blocks of tokens and words; results add up along the grid's last axis."""
    features, table, *rows = arrays
    n, d = features.shape
    tokens = _tokens(n, d, result)
    assert tokens is not None, "features that `fits` refuses"
    table = jnp.pad(table, ((0, -table.shape[0] % _WORDS), (0, 0)))
    v = table.shape[0]
    grid = (n // tokens, v // _WORDS) if words_last else (v // _WORDS, n // tokens)
    axis = {"token": 0, "word": 1} if words_last else {"word": 0, "token": 1}
    blocks = {
        "features": pl.BlockSpec((tokens, d), lambda *place: (place[axis["token"]], 0)),
        "table": pl.BlockSpec((_WORDS, d), lambda *place: (place[axis["word"]], 0)),
        "row": pl.BlockSpec((1, tokens), lambda *place: (0, place[axis["token"]])),
        "statistics": pl.BlockSpec((_ROWS, tokens), lambda *place: (0, place[axis["token"]])),
    }
    shapes = {"features": (n, d), "table": (v, d), "statistics": (_ROWS, n)}
    reread = d * (grid[0] * v if words_last else v + grid[0] * n) * table.dtype.itemsize
    products = 1 if result == "statistics" else 2
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=[blocks["features"], blocks["table"], *[blocks["row"]] * len(rows)],
        out_specs=blocks[result],
        out_shape=jax.ShapeDtypeStruct(shapes[result], jnp.float32),
        cost_estimate=pl.CostEstimate(
            flops=products * 2 * n * v * d, transcendentals=n * v, bytes_accessed=reread
        ),
        name=f"cross_entropy_{result}",
    )(features, table, *rows)


def _logits(num_words: int, block, features, table, targets):
    """Returns logits (v,n) of a block of words, which of its words exist, and which are targets.

    Words lie along the first axis and tokens along the last: a sum over words then adds whole
    registers, and what belongs to tokens is a row.
    """
    logits = jnp.einsum("vd,nd->vn", table[:], features[:], preferred_element_type=jnp.float32)
    word = block * _WORDS + jax.lax.broadcasted_iota(jnp.int32, logits.shape, 0)
    return logits, word < num_words, word == targets[:]


def _statistics_kernel(num_words, features, table, targets, result):
    block = pl.program_id(1)

    @pl.when(block == 0)
    def _():
        result[:] = jnp.zeros_like(result)
        result[_MAXIMUM : _MAXIMUM + 1] = jnp.full((1, result.shape[1]), _NEVER)

    logits, exists, true = _logits(num_words, block, features, table, targets)
    candidates = jnp.where(exists, logits, _NEVER)
    before = result[_MAXIMUM : _MAXIMUM + 1]
    maximum = jnp.maximum(before, candidates.max(axis=0, keepdims=True))
    exp_sum = jnp.exp(candidates - maximum).sum(axis=0, keepdims=True)
    result[_EXP_SUM : _EXP_SUM + 1] = (
        result[_EXP_SUM : _EXP_SUM + 1] * jnp.exp(before - maximum) + exp_sum
    )
    result[_MAXIMUM : _MAXIMUM + 1] = maximum
    result[_TRUE : _TRUE + 1] += jnp.where(true, logits, 0.0).sum(axis=0, keepdims=True)


def _logits_gradient(num_words, shares, block, features, table, targets, normalizer, weights):
    logits, exists, true = _logits(num_words, block, features, table, targets)
    target_share, every_word_share = shares
    gradient = jnp.exp(logits - normalizer[:]) - every_word_share
    gradient = (gradient - jnp.where(true, target_share, 0.0)) * weights[:]
    return jnp.where(exists, gradient, 0.0).astype(table.dtype)


def _features_kernel(num_words, shares, features, table, targets, normalizer, weights, result):
    arrays = (features, table, targets, normalizer, weights)
    dlogits = _logits_gradient(num_words, shares, pl.program_id(1), *arrays)
    part = jnp.einsum("vn,vd->nd", dlogits, table[:], preferred_element_type=jnp.float32)
    _add(result, part)


def _table_kernel(num_words, shares, features, table, targets, normalizer, weights, result):
    arrays = (features, table, targets, normalizer, weights)
    dlogits = _logits_gradient(num_words, shares, pl.program_id(0), *arrays)
    part = jnp.einsum("vn,nd->vd", dlogits, features[:], preferred_element_type=jnp.float32)
    _add(result, part)


def _add(result, part) -> None:
    @pl.when(pl.program_id(1) == 0)
    def _():
        result[:] = part

    @pl.when(pl.program_id(1) > 0)
    def _():
        result[:] += part
