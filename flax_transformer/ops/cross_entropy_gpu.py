"""Cross entropy over a large vocabulary on a GPU, whose logits are computed once.

Letters: n tokens, d model width, v vocabulary.
Logits of 37,000 words in float32 are the largest arrays of a training step, and would be written
once and read four times. Here a kernel computes them tile by tile. Of a tile it leaves what it adds
to the statistics of each token, and exp(logit - the target's logit) in bfloat16. The loss' gradient
of the logits is, but for the target, such an exponential times a number of the token, less a
constant. So both products with it take the exponentials: one scales its result by token, the other
its features.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from flax_transformer.ops import gpus

_TOKENS, _WORDS, _DEPTH = 128, 128, 64  # of a tile; and how much of d is in fast memory at a time
_BYTES = 2**30
"""The most that the exponentials may take; more tokens go in chunks."""
_NEVER = -1e30
_HIGHEST = 60.0
"""A logit that is higher than the target's by more counts as if it were so much higher: where the
target's probability is under exp(-60). So their sums stay far from exp(88), where float32 ends."""


class OtherWords(NamedTuple):
    """What the words beside each token's target come to; logits count from the target's."""

    maximum: jax.Array
    """(n,) the largest logit"""
    exp_sum: jax.Array
    """(n,) sum(exp(logit))"""
    exponentials: jax.Array | None
    """(n,v) exp(logit) in bfloat16, and 0 for the target and where there is no word"""


def fits(features: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Returns whether the kernel takes `features` (n,d)."""
    n, d = features.shape
    return n % _TOKENS == d % _DEPTH == 0 and gpus.all_are(gpus.have_large_shared_memory)


def filled(table: jax.Array) -> jax.Array:
    """Fills up `table` (v,d) with rows of zeros, so that tiles divide it: what the others take."""
    return jnp.pad(table, ((0, -len(table) % _WORDS), (0, 0)))


def chunks(n: int, v: int) -> int:
    """Returns how many chunks `n` tokens go in: as few as keep their exponentials small."""
    tiles = n // _TOKENS
    fitting = max(1, _BYTES // (2 * v * _TOKENS))
    return next(count for count in range(-(-tiles // fitting), tiles + 1) if tiles % count == 0)


def target_logits(features: jax.Array, targets: jax.Array, table: jax.Array) -> jax.Array:
    """Returns the logit of each target (n,) that is among the words of `table` (v,d), else 0."""
    rows = table.at[targets].get(mode="fill", fill_value=0, wrap_negative_indices=False)
    return (features.astype(jnp.float32) * rows.astype(jnp.float32)).sum(axis=1)


def other_words(
    features: jax.Array,
    targets: jax.Array,
    table: jax.Array,
    num_words: int,
    true: jax.Array,
    keep: bool,
) -> OtherWords:
    """Computes the logits features . table^T of every word but the target.

    features   (n,d) bfloat16
    targets    (n,) int32, counted from the table's first row; they may lie outside of it
    table      (v,d) bfloat16
    num_words  how many rows of the table are words
    true       (n,) the target's logit
    keep       whether to keep the exponentials, for `gradients`
    """
    parts = jax.ShapeDtypeStruct((len(table) // _WORDS, len(features)), jnp.float32)
    kept = jax.ShapeDtypeStruct((len(features), len(table)), features.dtype)
    kernel = functools.partial(_kernel, num_words, len(features) // _TOKENS)
    maxima, exp_sums, *exponentials = _call(
        kernel, (features, table, targets, true), (parts, parts, *[kept] * keep), "cross_entropy"
    )
    return OtherWords(maxima.max(axis=0), exp_sums.sum(axis=0), *exponentials or [None])


def gradients(
    features: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    table: jax.Array,
    exponentials: jax.Array,
    exp_sum: jax.Array,
    shares: tuple[float, float],
) -> tuple[jax.Array, jax.Array]:
    """Returns the loss' gradients of features (n,d) and table (v,d), in float32.

    weights       (n,), which scale the tokens' losses
    exponentials  of `OtherWords`
    exp_sum       (n,), the sum of exp(logit - the target's logit) over the whole vocabulary
    shares        the labels' probability of the target beyond other words', and that of every word

    The gradient of a logit is weight (exponential / exp_sum - share of every word); the target's
    exponential is 1, and makes up here for its share of the label too.
    """
    target_share, every_word_share = shares
    tokens = jnp.arange(len(targets))
    exponentials = exponentials.at[tokens, targets].set(
        (1 - target_share * exp_sum).astype(exponentials.dtype),
        mode="drop", unique_indices=True, indices_are_sorted=True, wrap_negative_indices=False,
    )  # fmt: skip
    scale = weights / exp_sum
    multiply = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    row_sum = table.astype(jnp.float32).sum(axis=0)
    dfeatures = multiply("nv,vd->nd", exponentials, table) * scale[:, None]
    dfeatures -= every_word_share * weights[:, None] * row_sum[None]
    scaled = features.astype(jnp.float32) * scale[:, None]
    dtable = multiply("nv,nd->vd", exponentials, scaled.astype(features.dtype))
    weighed = (features.astype(jnp.float32) * weights[:, None]).sum(axis=0)
    return dfeatures, dtable - every_word_share * weighed[None]


def _call(kernel, arrays: tuple[jax.Array, ...], results: Any, name: str) -> Any:
    """Runs `kernel` for every tile of the logits; `arrays` begin with features and table."""
    (n, d), v = arrays[0].shape, len(arrays[1])
    moved = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((arrays, results)))
    return pl.pallas_call(
        kernel,
        grid=(n // _TOKENS * (v // _WORDS),),
        out_shape=results,
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=3),
        cost_estimate=pl.CostEstimate(
            flops=2 * n * v * d, transcendentals=n * v, bytes_accessed=moved
        ),
        name=name,
    )(*arrays)


def _kernel(
    num_words: int, token_tiles: int, features, table, targets, true, maxima, exp_sums, *kept
):
    """Tiles of the same words come one after the other, since all features stay in the chip's
    cache."""
    tile = pl.program_id(0)
    token_tile, word_tile = tile % token_tiles, tile // token_tiles
    tokens, words = pl.ds(token_tile * _TOKENS, _TOKENS), pl.ds(word_tile * _WORDS, _WORDS)

    def add(step, total):
        depth = pl.ds(step * _DEPTH, _DEPTH)
        part = features[tokens, depth], table[words, depth]
        return total + jnp.einsum("nd,vd->nv", *part, preferred_element_type=jnp.float32)

    nothing = jnp.zeros((_TOKENS, _WORDS), jnp.float32)
    logits = jax.lax.fori_loop(0, features.shape[1] // _DEPTH, add, nothing)
    word = word_tile * _WORDS + jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    other = (word < num_words) & (word != targets[tokens][:, None])
    logits = jnp.where(other, jnp.minimum(logits - true[tokens][:, None], _HIGHEST), _NEVER)
    exponentials = jnp.exp(logits)
    maxima[word_tile, tokens] = logits.max(axis=1)
    exp_sums[word_tile, tokens] = exponentials.sum(axis=1)
    for array in kept:
        array[tokens, words] = exponentials.astype(array.dtype)
