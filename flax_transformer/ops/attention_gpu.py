"""Attention over packed rows as GPU kernels, whose scores never leave the chip's fast memory.

Letters: b batch, t query position, s key position, h heads, k width of a head.
A program of the grid holds a block of queries of one head and meets the keys block by block, but
only blocks in which a sentence of its own stands: of a row of many sentences most are left out, and
no mask is ever written. In the backward pass some programs hold queries and others keys, and both
compute the weights again. None adds to what another writes: results are the same each time.
Source: Dao et al. 2022, "FlashAttention"; Dao 2023, "FlashAttention-2".
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from flax_transformer.ops import gpus
from flax_transformer.ops.einsum import MATRIX_PRODUCT

_BLOCK = 64  # queries, and keys, that a program multiplies at a time
_WIDTHS = (32, 64, 128)  # of a head: tiles of others do not exist, or do not fit the registers
_NEVER = -1e30  # finite, so that a query that may see nothing stays free of NaN


class Rows(NamedTuple):
    """Packed rows; in a kernel, references to them."""

    query: Any
    """(b,t,h,k)"""
    key: Any
    """(b,s,h,k)"""
    value: Any
    """(b,s,h,k)"""
    query_segments: Any
    """(b,t)"""
    key_segments: Any
    """(b,s)"""


def fits(query: jax.Array | jax.ShapeDtypeStruct, key: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Returns whether the kernels take queries (b,t,h,k) and keys (b,s,h,k) of one device."""
    (_, t, _, k), s = query.shape, key.shape[1]
    whole_blocks = t % _BLOCK == s % _BLOCK == 0
    taken = whole_blocks and k in _WIDTHS and query.dtype == jnp.bfloat16
    return taken and gpus.all_are(gpus.run_kernels)


def gpu_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    query_segments: jax.Array,
    key_segments: jax.Array,
    causal: bool,
) -> jax.Array:
    """Computes `attention` for arrays that `fits` accepts."""
    return _attention(Rows(query, key, value, query_segments, key_segments), causal)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _attention(rows: Rows, causal: bool) -> jax.Array:
    return _heads_and_normalizer(rows, causal)[0]


def _keep(rows: Rows, causal: bool):
    heads, normalizer = _heads_and_normalizer(rows, causal)
    # The heads are result and residual under one name, so that remat keeps them once.
    heads = checkpoint_name(heads, MATRIX_PRODUCT)
    return heads, (rows, heads, checkpoint_name(normalizer, MATRIX_PRODUCT))


def _heads_and_normalizer(rows: Rows, causal: bool) -> tuple[jax.Array, jax.Array]:
    """Returns (b,t,h,k), and the logarithm of the sum of exp(scores), float32 (b,h,t)."""
    b, t, h, _ = rows.query.shape
    results = (rows.query, jax.ShapeDtypeStruct((b, h, t), jnp.float32))
    of_queries, _ = _blocks_to_meet(rows, causal)
    kernel = functools.partial(_forward_kernel, causal)
    return _call(kernel, rows, (), of_queries, results, "attention", products=2)


def _differentiate(causal: bool, kept, dheads: jax.Array) -> tuple[Rows]:
    rows, heads, normalizer = kept
    to_meet = jnp.concatenate(_blocks_to_meet(rows, causal), axis=2)
    kernel = functools.partial(_gradient_kernel, causal)
    dquery, dkey, dvalue = _call(
        kernel, rows, (heads, normalizer, dheads), to_meet, tuple(rows[:3]),
        "attention_gradient", products=7,
    )  # fmt: skip
    return (Rows(dquery, dkey, dvalue, None, None),)


_attention.defvjp(_keep, _differentiate)


def _blocks_to_meet(rows: Rows, causal: bool) -> tuple[jax.Array, jax.Array]:
    """Returns which blocks of keys each block of queries meets, and which of queries each of keys:
    the first, and the one after the last; int32 (2,b,blocks) each.

    Blocks in which none of its sentences stands are left out at both ends. Sentences follow each
    other, so between the ends there is hardly another.
    """
    queries, keys = (
        # Padding, 0, stands at the end of a row, so that here it is the largest.
        (segments.astype(jnp.uint32) - 1).reshape(len(segments), -1, _BLOCK)
        for segments in (rows.query_segments, rows.key_segments)
    )
    not_before = queries.min(axis=2)[:, :, None] <= keys.max(axis=2)[:, None]
    not_after = queries.max(axis=2)[:, :, None] >= keys.min(axis=2)[:, None]
    meet = not_before & not_after
    if causal:
        meet &= jnp.tril(jnp.ones(meet.shape[1:], bool))[None]
    return _ends(meet), _ends(meet.swapaxes(1, 2))


def _ends(meet: jax.Array) -> jax.Array:
    """Returns of each row of `meet` (b,blocks,others) the first true place, and that after the
    last; both 0 where there is none."""
    begin = jnp.argmax(meet, axis=2)
    end = meet.shape[2] - jnp.argmax(meet[:, :, ::-1], axis=2)
    return jnp.stack([begin, jnp.where(meet.any(axis=2), end, 0)]).astype(jnp.int32)


def _call(
    kernel, rows: Rows, others: tuple, to_meet: jax.Array, results: Any, name: str, products: int
) -> Any:
    """Runs `kernel` for every block of `to_meet`, head and row.

    products: that it computes of every two blocks
    """
    (b, t, h, k), s = rows.query.shape, rows.key.shape[1]
    results = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), results)
    moved = jax.tree.leaves((rows, others, to_meet, results))
    return pl.pallas_call(
        kernel,
        grid=(to_meet.shape[2], h, b),
        out_shape=results,
        compiler_params=triton.CompilerParams(num_warps=4 if k <= 64 else 8, num_stages=2),
        cost_estimate=pl.CostEstimate(
            flops=2 * products * b * h * t * s * k,
            transcendentals=b * h * t * s,
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in moved),
        ),
        name=name,
    )(*rows, *others, to_meet)


class _Head(NamedTuple):
    """The head of the row that a program works on."""

    row: Any
    head: Any
    causal: bool

    def block(self, array, number):
        """Returns a block (t,k) of an array (b,t,h,k)."""
        return array[self.row, _positions(number), self.head]

    def store(self, array, number, values):
        array[self.row, _positions(number), self.head] = values.astype(array.dtype)

    def scores(self, rows: Rows, query_block, query, key_block, key):
        """Returns the scores (t,s) of two blocks, in float32, and which of them count."""
        scores = _multiply("tk,sk->ts", query, key) * query.shape[1] ** -0.5
        of_query = rows.query_segments[self.row, _positions(query_block)]
        of_key = rows.key_segments[self.row, _positions(key_block)]
        visible = of_query[:, None] == of_key[None, :]
        if self.causal:
            t, s = (jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis) for axis in (0, 1))
            visible &= query_block * _BLOCK + t >= key_block * _BLOCK + s
        return scores, visible

    def meet(self, to_meet, block, add, sums):
        """Returns `sums` after `add(other, sums)` for each block that `block` has to meet."""
        begin, end = (to_meet[which, self.row, block] for which in range(2))
        return jax.lax.fori_loop(begin, end, add, sums)


def _positions(block):
    return pl.ds(block * _BLOCK, _BLOCK)


def _multiply(subscripts: str, one, other):
    """The product of two blocks in the type of the second, added up in float32."""
    return jnp.einsum(
        subscripts, one.astype(other.dtype), other, preferred_element_type=jnp.float32
    )


def _forward_kernel(
    causal: bool, query, key, value, query_segments, key_segments, to_meet, heads, normalizer
):
    rows = Rows(query, key, value, query_segments, key_segments)
    block, head = pl.program_id(0), _Head(pl.program_id(2), pl.program_id(1), causal)
    own = head.block(query, block)

    def add(other, sums):
        """Goes on with the softmax of each query as Milakov and Gimelshein 2018 do."""
        scores, visible = head.scores(rows, block, own, other, head.block(key, other))
        scores = jnp.where(visible, scores, _NEVER)
        before, total, weighted = sums
        maximum = jnp.maximum(before, scores.max(axis=1))
        weights = jnp.exp(scores - maximum[:, None])
        factor = jnp.exp(before - maximum)
        product = _multiply("ts,sk->tk", weights, head.block(value, other))
        total = total * factor + weights.sum(axis=1)
        return maximum, total, weighted * factor[:, None] + product

    start = jnp.full(_BLOCK, _NEVER), jnp.zeros(_BLOCK), jnp.zeros(own.shape, jnp.float32)
    maximum, total, weighted = head.meet(to_meet, block, add, start)
    total = jnp.where(total == 0, 1, total)  # where nothing was met
    head.store(heads, block, weighted / total[:, None])
    normalizer[head.row, head.head, _positions(block)] = maximum + jnp.log(total)


def _gradient_kernel(causal: bool, *references):
    """The programs of one head stand side by side, so that what they share is read once."""
    rows, (heads, normalizer, dheads, to_meet, *results) = Rows(*references[:5]), references[5:]
    dquery, dkey, dvalue = results
    place, head = pl.program_id(0), _Head(pl.program_id(2), pl.program_id(1), causal)
    query_blocks = rows.query.shape[1] // _BLOCK

    def weights_and_dscores(query_block, query, key_block, key, value):
        """Returns weights (t,s), the gradient of the scores before their scaling, and that of the
        heads (t,k)."""
        scores, visible = head.scores(rows, query_block, query, key_block, key)
        normal = normalizer[head.row, head.head, _positions(query_block)]
        weights = jnp.where(visible, jnp.exp(scores - normal[:, None]), 0.0)
        gradient, found = head.block(dheads, query_block), head.block(heads, query_block)
        # The mean of the weights' gradient, by the weights.
        mean = (gradient.astype(jnp.float32) * found.astype(jnp.float32)).sum(axis=1)
        dweights = _multiply("tk,sk->ts", gradient, value)
        return weights, weights * (dweights - mean[:, None]), gradient

    @pl.when(place < query_blocks)
    def _():
        own = head.block(rows.query, place)

        def add(other, total):
            key, value = head.block(rows.key, other), head.block(rows.value, other)
            _, dscores, _ = weights_and_dscores(place, own, other, key, value)
            return total + _multiply("ts,sk->tk", dscores, key)

        total = head.meet(to_meet, place, add, jnp.zeros(own.shape, jnp.float32))
        head.store(dquery, place, total * own.shape[1] ** -0.5)

    @pl.when(place >= query_blocks)
    def _():
        block = place - query_blocks
        key, value = head.block(rows.key, block), head.block(rows.value, block)

        def add(other, totals):
            query = head.block(rows.query, other)
            weights, dscores, gradient = weights_and_dscores(other, query, block, key, value)
            return (
                totals[0] + _multiply("ts,tk->sk", dscores, query),
                totals[1] + _multiply("ts,tk->sk", weights, gradient),
            )

        nothing = jnp.zeros(key.shape, jnp.float32)
        totals = head.meet(to_meet, place, add, (nothing, nothing))
        head.store(dkey, block, totals[0] * key.shape[1] ** -0.5)
        head.store(dvalue, block, totals[1])
