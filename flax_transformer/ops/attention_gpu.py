"""Attention over packed rows as GPU kernels, whose scores never leave the chip's fast memory.

Letters: b batch, t query position, s key position, h heads, k width of a head.
A program of the grid holds a block of queries of one head and meets the keys block by block, but
only blocks in which a sentence of its own stands: of a row of many sentences most are left out, and
no mask is ever written. In the backward pass some programs hold queries and others keys, and both
compute the weights again. None adds to what another writes: results are the same each time.
Source: Dao et al. 2022, "FlashAttention"; Dao 2023, "FlashAttention-2".
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from flax_transformer.ops import gpus, packed_blocks
from flax_transformer.ops.einsum import MATRIX_PRODUCT

_WIDTHS = (32, 64, 128)  # of a head: tiles of others do not exist, or do not fit the registers
_NEVER = -1e30  # finite, so that a query that may see nothing stays free of NaN


class Tiles(NamedTuple):
    """How the programs of a kernel cut up their head."""

    held: int
    """Positions of the block that a program holds."""
    met: int
    """Positions of each block that it meets."""
    num_warps: int
    num_stages: int


_SHORTEST = 64  # of the blocks that divide both lengths
# The fastest of 16 on an H200, rows full or of many sentences (benchmarks/notebook.md).
_FORWARD, _GRADIENT = Tiles(64, 32, 4, 3), Tiles(64, 64, 4, 2)
_WIDE = Tiles(64, 64, 8, 2)  # of either, for a head 128 wide


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
    whole_blocks = t % _SHORTEST == s % _SHORTEST == 0
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
    """Returns (b,t,h,k), and the binary logarithm of the sum of exp(scores), float32 (b,h,t)."""
    b, t, h, _ = rows.query.shape
    results = (rows.query, jax.ShapeDtypeStruct((b, h, t), jnp.float32))
    tiles = _FORWARD if rows.query.shape[3] <= 64 else _WIDE
    segments = rows.query_segments, rows.key_segments
    to_meet = packed_blocks.keys_to_meet(*segments, causal, tiles.held, tiles.met)
    kernel = functools.partial(_forward_kernel, causal, tiles)
    return _call(kernel, rows, (), to_meet, results, tiles, "attention", products=2)


def _differentiate(causal: bool, kept, dheads: jax.Array) -> tuple[Rows]:
    rows, heads, normalizer = kept
    tiles = _GRADIENT if rows.query.shape[3] <= 64 else _WIDE
    segments = rows.query_segments, rows.key_segments
    to_meet = [
        packed_blocks.keys_to_meet(*segments, causal, tiles.held, tiles.met),
        packed_blocks.queries_to_meet(*segments, causal, tiles.met, tiles.held),
    ]
    # The mean of the weights' gradient, by the weights.
    mean = (dheads.astype(jnp.float32) * heads.astype(jnp.float32)).sum(axis=3).swapaxes(1, 2)
    kernel = functools.partial(_gradient_kernel, causal, tiles)
    dquery, dkey, dvalue = _call(
        kernel, rows, (mean, normalizer, dheads), jnp.concatenate(to_meet, axis=2),
        tuple(rows[:3]), tiles, "attention_gradient", products=7,
    )  # fmt: skip
    return (Rows(dquery, dkey, dvalue, None, None),)


_attention.defvjp(_keep, _differentiate)


def _call(
    kernel,
    rows: Rows,
    others: tuple,
    to_meet: jax.Array,
    results: Any,
    tiles: Tiles,
    name: str,
    products: int,
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
        compiler_params=triton.CompilerParams(
            num_warps=tiles.num_warps, num_stages=tiles.num_stages
        ),
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

    def block(self, array, place):
        """Returns a block (t,k) of an array (b,t,h,k)."""
        return array[self.row, place, self.head]

    def store(self, array, place, values):
        array[self.row, place, self.head] = values.astype(array.dtype)

    def visible(self, rows: Rows, queries, keys):
        """Returns which queries of a place may see which keys of another, bool (t,s)."""
        of_query, of_key = rows.query_segments[self.row, queries], rows.key_segments[self.row, keys]
        visible = of_query[:, None] == of_key[None, :]
        if self.causal:
            t, s = (jax.lax.broadcasted_iota(jnp.int32, visible.shape, axis) for axis in (0, 1))
            visible &= queries.start + t >= keys.start + s
        return visible

    def meet(self, to_meet, block, add, sums):
        """Returns `sums` after `add(other, whole, sums)` for each block that `block` has to meet:
        first for those that are seen as a `whole`, which need no mask."""
        begin, end, first, last = (to_meet[which, self.row, block] for which in range(4))
        sums = jax.lax.fori_loop(first, last, lambda i, sums: add(i, True, sums), sums)

        def add_rest(other, sums):
            return add(jnp.where(other < first, other, other + (last - first)), False, sums)

        return jax.lax.fori_loop(begin, end - (last - first), add_rest, sums)


def _positions(block, size):
    return pl.ds(block * size, size)


def _scores(query, key):
    """Returns the scores (t,s) of two blocks as powers of 2, which a GPU computes faster."""
    return _multiply("tk,sk->ts", query, key) * (query.shape[1] ** -0.5 * math.log2(math.e))


def _multiply(subscripts: str, one, other):
    """The product of two blocks in the type of the second, added up in float32."""
    return jnp.einsum(
        subscripts, one.astype(other.dtype), other, preferred_element_type=jnp.float32
    )


def _forward_kernel(
    causal: bool, tiles: Tiles, query, key, value, query_segments, key_segments, to_meet, heads,
    normalizer,
):  # fmt: skip
    rows = Rows(query, key, value, query_segments, key_segments)
    block, head = pl.program_id(0), _Head(pl.program_id(2), pl.program_id(1), causal)
    place = _positions(block, tiles.held)
    own = head.block(query, place)

    def add(other, whole, sums):
        """Goes on with the softmax of each query as Milakov and Gimelshein 2018 do."""
        keys = _positions(other, tiles.met)
        scores = _scores(own, head.block(key, keys))
        if not whole:
            scores = jnp.where(head.visible(rows, place, keys), scores, _NEVER)
        before, total, weighted = sums
        maximum = jnp.maximum(before, scores.max(axis=1))
        weights = jnp.exp2(scores - maximum[:, None])
        factor = jnp.exp2(before - maximum)
        product = _multiply("ts,sk->tk", weights, head.block(value, keys))
        total = total * factor + weights.sum(axis=1)
        return maximum, total, weighted * factor[:, None] + product

    start = (
        jnp.full(tiles.held, _NEVER), jnp.zeros(tiles.held), jnp.zeros(own.shape, jnp.float32)
    )  # fmt: skip
    maximum, total, weighted = head.meet(to_meet, block, add, start)
    total = jnp.where(total == 0, 1, total)  # where nothing was met
    head.store(heads, place, weighted / total[:, None])
    normalizer[head.row, head.head, place] = maximum + jnp.log2(total)


def _gradient_kernel(causal: bool, tiles: Tiles, *references):
    """The programs of one head stand side by side, so that what they share is read once."""
    rows, (mean, normalizer, dheads, to_meet, *results) = Rows(*references[:5]), references[5:]
    dquery, dkey, dvalue = results
    block, head = pl.program_id(0), _Head(pl.program_id(2), pl.program_id(1), causal)
    query_blocks = rows.query.shape[1] // tiles.held

    def weights_and_dscores(queries, query, keys, key, value, whole):
        """Returns weights (t,s), the gradient of the scores before their scaling, and that of the
        heads (t,k)."""
        normal = normalizer[head.row, head.head, queries]
        weights = jnp.exp2(_scores(query, key) - normal[:, None])
        if not whole:
            weights = jnp.where(head.visible(rows, queries, keys), weights, 0.0)
        gradient = head.block(dheads, queries)
        dweights = _multiply("tk,sk->ts", gradient, value)
        of_mean = dweights - mean[head.row, head.head, queries][:, None]
        return weights, weights * of_mean, gradient

    @pl.when(block < query_blocks)
    def _():
        place = _positions(block, tiles.held)
        own = head.block(rows.query, place)

        def add(other, whole, total):
            keys = _positions(other, tiles.met)
            key, value = head.block(rows.key, keys), head.block(rows.value, keys)
            _, dscores, _ = weights_and_dscores(place, own, keys, key, value, whole)
            return total + _multiply("ts,sk->tk", dscores, key)

        total = head.meet(to_meet, block, add, jnp.zeros(own.shape, jnp.float32))
        head.store(dquery, place, total * own.shape[1] ** -0.5)

    @pl.when(block >= query_blocks)
    def _():
        place = _positions(block - query_blocks, tiles.held)
        key, value = head.block(rows.key, place), head.block(rows.value, place)

        def add(other, whole, totals):
            queries = _positions(other, tiles.met)
            query = head.block(rows.query, queries)
            weights, dscores, gradient = weights_and_dscores(
                queries, query, place, key, value, whole
            )
            return (
                totals[0] + _multiply("ts,tk->sk", dscores, query),
                totals[1] + _multiply("ts,tk->sk", weights, gradient),
            )

        nothing = jnp.zeros(key.shape, jnp.float32)
        totals = head.meet(to_meet, block, add, (nothing, nothing))
        head.store(dkey, place, totals[0] * key.shape[1] ** -0.5)
        head.store(dvalue, place, totals[1])
