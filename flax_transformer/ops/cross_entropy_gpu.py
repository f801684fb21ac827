"""Cross entropy over a large vocabulary on a GPU, without ever writing the logits to memory.

Letters: n tokens, d model width, v vocabulary.
Logits of 37,000 words in float32 are the largest arrays of a training step, and would be written
once and read four times. Here a kernel computes them tile by tile and leaves, of each tile, what it
adds to the statistics of each token. A second kernel computes the tiles again and writes the loss'
gradient of the logits, in bfloat16, as the two products with it take it. cuBLAS computes these
products faster than a kernel would that makes the gradient again for each of the two.
Source of the tiles' sums: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax".
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from flax_transformer.ops import gpus

_TOKENS, _WORDS, _DEPTH = 128, 256, 64  # of a tile; and how much of d is in fast memory at a time
_GRADIENT_BYTES = 2**30
"""The most that the gradient of the logits may take; more tokens go in chunks."""
_NEVER = -1e30


def fits(features: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Returns whether the kernels take `features` (n,d)."""
    n, d = features.shape
    return n % _TOKENS == d % _DEPTH == 0 and gpus.all_are(gpus.have_large_shared_memory)


def statistics(features: jax.Array, table: jax.Array, targets: jax.Array) -> list[jax.Array]:
    """Returns three statistics of each token's logits features . table^T, each (n,) float32.

    features  (n,d) bfloat16
    table     (v,d) bfloat16
    targets   (n,) int32, counted from the table's first row; they may lie outside of it
    results   the largest logit; sum(exp(logit - largest)); the target's logit, 0 if the target is
              not among these words
    """
    shape = (pl.cdiv(len(table), _WORDS), len(features))
    kernel = functools.partial(_statistics_kernel, len(table), len(features) // _TOKENS)
    maxima, exp_sums, trues = _call(
        kernel,
        (features, _filled(table), targets),
        (jax.ShapeDtypeStruct(shape, jnp.float32),) * 3,
        "cross_entropy_statistics",
    )
    maximum = maxima.max(axis=0)
    exp_sum = (exp_sums * jnp.exp(maxima - maximum[None])).sum(axis=0)
    return [maximum, exp_sum, trues.sum(axis=0)]


def gradients(
    features: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    normalizer: jax.Array,
    weights: jax.Array,
    shares: tuple[float, float],
) -> tuple[jax.Array, jax.Array]:
    """Returns the loss' gradients of features (n,d) and table (v,d), in float32.

    normalizer  (n,), the logarithm of the sum of exp(logits) over the whole vocabulary
    weights     (n,), which scale the tokens' losses
    shares      the labels' probability of the target beyond other words', and that of every word
    """
    filled = _filled(table)

    def add_chunk(dtable, chunk):
        dlogits = _logits_gradient(len(table), shares, chunk, filled)
        multiply = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        dtable += multiply("nv,nd->vd", dlogits, chunk[0])
        return dtable, multiply("nv,vd->nd", dlogits, filled)

    n, d = features.shape
    chunks = _chunks(n, len(filled))
    split = jax.tree.map(
        lambda x: x.reshape(chunks, -1, *x.shape[1:]), (features, targets, normalizer, weights)
    )
    dtable, dfeatures = jax.lax.scan(add_chunk, jnp.zeros(filled.shape, jnp.float32), split)
    return dfeatures.reshape(n, d), dtable[: len(table)]


def _filled(table: jax.Array) -> jax.Array:
    return jnp.pad(table, ((0, -len(table) % _WORDS), (0, 0)))


def _chunks(n: int, v: int) -> int:
    """Returns how many chunks `n` tokens go in: as few as keep the gradient small."""
    tiles = n // _TOKENS
    fitting = max(1, _GRADIENT_BYTES // (2 * v * _TOKENS))
    return next(count for count in range(-(-tiles // fitting), tiles + 1) if tiles % count == 0)


def _logits_gradient(num_words: int, shares, rows, table: jax.Array) -> jax.Array:
    features = rows[0]
    kernel = functools.partial(_gradient_kernel, num_words, len(features) // _TOKENS, shares)
    result = jax.ShapeDtypeStruct((len(features), len(table)), table.dtype)
    return _call(kernel, (features, table, *rows[1:]), result, "cross_entropy_gradient")


def _call(kernel, arrays: tuple[jax.Array, ...], results: Any, name: str) -> Any:
    """Runs `kernel` for every tile of the logits; `arrays` begin with features and table."""
    (n, d), v = arrays[0].shape, len(arrays[1])
    moved = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((arrays, results)))
    return pl.pallas_call(
        kernel,
        grid=(n // _TOKENS * (v // _WORDS),),
        out_shape=results,
        compiler_params=triton.CompilerParams(num_warps=8, num_stages=3),
        cost_estimate=pl.CostEstimate(
            flops=2 * n * v * d, transcendentals=n * v, bytes_accessed=moved
        ),
        name=name,
    )(*arrays)


def _place(token_tiles: int) -> tuple[Any, Any]:
    """Returns the tile's place along tokens and along words.

    Tiles of the same words come one after the other, since all features stay in the chip's cache.
    """
    tile = pl.program_id(0)
    return tile % token_tiles, tile // token_tiles


def _logits(num_words: int, place, features, table, targets):
    """Returns a tile of logits (n,v), which words exist, which are targets, and its tokens."""
    tokens = pl.ds(place[0] * _TOKENS, _TOKENS)
    words = pl.ds(place[1] * _WORDS, _WORDS)

    def add(step, total):
        depth = pl.ds(step * _DEPTH, _DEPTH)
        part = features[tokens, depth], table[words, depth]
        return total + jnp.einsum("nd,vd->nv", *part, preferred_element_type=jnp.float32)

    nothing = jnp.zeros((_TOKENS, _WORDS), jnp.float32)
    logits = jax.lax.fori_loop(0, features.shape[1] // _DEPTH, add, nothing)
    word = place[1] * _WORDS + jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    return logits, word < num_words, word == targets[tokens][:, None], tokens


def _statistics_kernel(
    num_words: int, token_tiles: int, features, table, targets, maxima, exp_sums, trues
):
    place = _place(token_tiles)
    logits, exists, true, tokens = _logits(num_words, place, features, table, targets)
    candidates = jnp.where(exists, logits, _NEVER)
    maximum = candidates.max(axis=1)
    maxima[place[1], tokens] = maximum
    exp_sums[place[1], tokens] = jnp.exp(candidates - maximum[:, None]).sum(axis=1)
    trues[place[1], tokens] = jnp.where(true, logits, 0.0).sum(axis=1)


def _gradient_kernel(
    num_words: int, token_tiles: int, shares, features, table, targets, normalizer, weights, result
):
    place = _place(token_tiles)
    logits, exists, true, tokens = _logits(num_words, place, features, table, targets)
    target_share, every_word_share = shares
    gradient = jnp.exp(logits - normalizer[tokens][:, None]) - every_word_share
    gradient = (gradient - jnp.where(true, target_share, 0.0)) * weights[tokens][:, None]
    words = pl.ds(place[1] * _WORDS, _WORDS)
    result[tokens, words] = jnp.where(exists, gradient, 0.0).astype(result.dtype)
