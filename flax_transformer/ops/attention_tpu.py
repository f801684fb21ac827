"""Attention over packed rows as one TPU kernel, whose scores never leave the chip's fast memory.

Letters: b batch, t query position, s key position, h heads, k width of a head.
The einsum form writes and reads (b,h,t,s) scores several times in each direction. Here a program
of the grid holds the scores of a block of queries of one row, against all keys, and computes
equation 1 and its gradient there. The backward pass computes the softmax again, so that only
queries, keys and values are kept for it (as in Dao et al. 2022, but with whole rows of keys at
once: sentences are short enough).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from flax_transformer.ops.einsum import MATRIX_PRODUCT
from flax_transformer.ops.rounding import times

KERNEL_BYTES = 16 * 2**20
"""Fast memory of a chip that the compiler gives a kernel that does not ask for more."""

_LANES = 128
_QUERY_BLOCKS = (256, 128)  # the largest that divides t and fits
_NEVER = -1e30  # finite, so that a query that may see nothing stays free of NaN


Described = jax.Array | jax.ShapeDtypeStruct


class Shape(NamedTuple):
    """What the kernel is compiled for."""

    num_heads: int
    causal: bool


def fits(query: Described, key: Described) -> bool:
    """Returns whether the kernel takes queries (b,t,h,k) and keys (b,s,h,k) of one device."""
    (_, t, h, k), s = query.shape, key.shape[1]
    whole_lanes = t % _LANES == 0 and s % _LANES == 0 and (h * k) % _LANES == 0
    heads_in_lanes = k % _LANES == 0 or _LANES % k == 0
    if not (whole_lanes and heads_in_lanes and query.dtype == jnp.bfloat16):
        return False
    # Where the gradient has room, the forward pass has as well.
    return _query_block(t, s, h, k, gradient=True) is not None


def _query_block(t: int, s: int, h: int, k: int, gradient: bool) -> int | None:
    """Returns how many queries a program takes; None where not even the fewest fit."""
    for block in _QUERY_BLOCKS:
        if t % block == 0 and _bytes(block, s, h, k, gradient) <= KERNEL_BYTES:
            return block
    return None


def _bytes(block: int, s: int, h: int, k: int, gradient: bool) -> int:
    """Returns the bytes that a program needs for a block of queries.

    This is an upper bound of what the compiler says.
    """
    width, lanes = h * k, max(k, _LANES)
    query_arrays, key_arrays = (3, 4) if gradient else (2, 2)
    # Arrays in bfloat16 and segments in int32, each twice, since the next is fetched meanwhile.
    arrays = 2 * 2 * width * (query_arrays * block + key_arrays * s) + 2 * 4 * (block + s)
    sums = 2 * 4 * width * s if gradient else 0
    # Weights and their gradient, up to three at a time; a product for the sums; and each head's
    # queries and gradient.
    return arrays + sums + 4 * (3 * block * s + s * lanes + block * h * lanes)


def tpu_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    query_segments: jax.Array,
    key_segments: jax.Array,
    causal: bool,
) -> jax.Array:
    """Computes `attention` for arrays that `fits` accepts."""
    (b, t, h, k), s = query.shape, key.shape[1]
    query = times(query, k**-0.5)
    # Heads side by side fill the lanes; (h,k) apart would leave half of them empty for k = 64.
    flat = query.reshape(b, t, h * k), key.reshape(b, s, h * k), value.reshape(b, s, h * k)
    segments = query_segments[:, None, :], key_segments[:, None, :]
    heads = _attention(*flat, *segments, Shape(h, causal))
    return checkpoint_name(heads.reshape(b, t, h, k), MATRIX_PRODUCT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attention(query, key, value, query_segments, key_segments, shape: Shape):
    return _run_forward(query, key, value, query_segments, key_segments, shape)


def _keep(query, key, value, query_segments, key_segments, shape: Shape):
    arrays = (query, key, value, query_segments, key_segments)
    return _run_forward(*arrays, shape), arrays


def _differentiate(shape: Shape, arrays, gradient):
    dquery, dkey, dvalue = _run_backward(arrays, gradient, shape)
    return dquery, dkey, dvalue, None, None


_attention.defvjp(_keep, _differentiate)


def _run_forward(query, key, value, query_segments, key_segments, shape: Shape):
    grid, specs = _grid_and_specs(query, key, shape, gradient=False)
    return pl.pallas_call(
        functools.partial(_forward_kernel, shape),
        grid=grid,
        in_specs=[specs.query, specs.key, specs.key, specs.query_segments, specs.key_segments],
        out_specs=specs.query,
        out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
        cost_estimate=_cost(query, key, products=2, arrays=4),
        name="attention",
    )(query, key, value, query_segments, key_segments)


def _run_backward(arrays, gradient, shape: Shape):
    query, key, value, _, _ = arrays
    grid, specs = _grid_and_specs(query, key, shape, gradient=True)
    accumulator = pltpu.VMEM(key.shape[1:], jnp.float32)
    return pl.pallas_call(
        functools.partial(_backward_kernel, shape),
        grid=grid,
        in_specs=[
            specs.query, specs.key, specs.key, specs.query_segments, specs.key_segments,
            specs.query,
        ],
        out_specs=[specs.query, specs.key, specs.key],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query, key, value)],
        scratch_shapes=[accumulator, accumulator],
        cost_estimate=_cost(query, key, products=5, arrays=7),
        name="attention_gradient",
    )(*arrays, gradient)  # fmt: skip


class _Specs(NamedTuple):
    query: pl.BlockSpec
    key: pl.BlockSpec
    query_segments: pl.BlockSpec
    key_segments: pl.BlockSpec


def _grid_and_specs(
    query: jax.Array, key: jax.Array, shape: Shape, gradient: bool
) -> tuple[tuple[int, int], _Specs]:
    (b, t, width), s = query.shape, key.shape[1]
    block = _query_block(t, s, shape.num_heads, width // shape.num_heads, gradient)
    assert block is not None, "arrays that `fits` refuses"
    specs = _Specs(
        query=pl.BlockSpec((1, block, width), lambda row, part: (row, part, 0)),
        key=pl.BlockSpec((1, s, width), lambda row, part: (row, 0, 0)),
        query_segments=pl.BlockSpec((1, 1, block), lambda row, part: (row, 0, part)),
        key_segments=pl.BlockSpec((1, 1, s), lambda row, part: (row, 0, 0)),
    )
    return (b, t // block), specs


def _cost(query: jax.Array, key: jax.Array, products: int, arrays: int) -> pl.CostEstimate:
    (b, t, width), s = query.shape, key.shape[1]
    moved = arrays * b * max(t, s) * width * query.dtype.itemsize
    return pl.CostEstimate(
        flops=products * 2 * b * t * s * width, transcendentals=b * t * s, bytes_accessed=moved
    )


def _forward_kernel(shape, query, key, value, query_segments, key_segments, output):
    visible = _visible(shape, query_segments, key_segments)
    for lanes, of_head in _heads(shape, query.shape[2]):
        heads = jnp.zeros((query.shape[1], lanes.stop - lanes.start), jnp.float32)
        for mine in of_head:
            weights = _weights(query[0, :, lanes], key[0, :, lanes], mine, visible)
            product = _multiply("ts,sk->tk", weights.astype(value.dtype), value[0, :, lanes])
            heads = jnp.where(mine, product, heads)
        output[0, :, lanes] = heads.astype(output.dtype)


def _backward_kernel(
    shape, query, key, value, query_segments, key_segments, gradient,
    dquery, dkey, dvalue, key_sum, value_sum,
):  # fmt: skip
    part = pl.program_id(1)

    @pl.when(part == 0)
    def _():
        key_sum[:] = jnp.zeros_like(key_sum)
        value_sum[:] = jnp.zeros_like(value_sum)

    visible = _visible(shape, query_segments, key_segments)
    for lanes, of_head in _heads(shape, query.shape[2]):
        total = jnp.zeros((query.shape[1], lanes.stop - lanes.start), jnp.float32)
        for mine in of_head:
            q, k, g = query[0, :, lanes], key[0, :, lanes], gradient[0, :, lanes]
            q, g = (jnp.where(mine, x, 0).astype(x.dtype) for x in (q, g))
            weights = _weights(q, k, mine, visible)
            dweights = _multiply("tk,sk->ts", g, value[0, :, lanes])
            inner = jnp.sum(weights * dweights, axis=1, keepdims=True)
            dscores = (weights * (dweights - inner)).astype(q.dtype)
            product = _multiply("ts,sk->tk", dscores, k)
            total = jnp.where(mine, product, total)
            # q and g hold zeros outside this head, so these sums change its lanes only.
            key_sum[:, lanes] += _multiply("ts,tk->sk", dscores, q)
            value_sum[:, lanes] += _multiply("ts,tk->sk", weights.astype(g.dtype), g)
        dquery[0, :, lanes] = total.astype(dquery.dtype)

    @pl.when(part == pl.num_programs(1) - 1)
    def _():
        dkey[0] = key_sum[:].astype(dkey.dtype)
        dvalue[0] = value_sum[:].astype(dvalue.dtype)


def _heads(shape: Shape, width: int):
    """Yields for every group of heads that share lanes: the lanes, and for each head its own."""
    k = width // shape.num_heads
    group = max(k, _LANES)
    for start in range(0, width, group):
        lane = jax.lax.broadcasted_iota(jnp.int32, (1, group), 1)
        of_head = [(lane >= first) & (lane < first + k) for first in range(0, group, k)]
        yield slice(start, start + group), of_head


def _visible(shape: Shape, query_segments, key_segments) -> jax.Array:
    """Returns which keys this block of queries sees, bool (t,s).

    Those of the same segment, and at no later position if causal.
    """
    (t,), s = query_segments.shape[2:], key_segments.shape[2]
    # A column of segment numbers, from a row of them: a transpose of whole tiles.
    columns = jnp.broadcast_to(query_segments[0], (_LANES, t)).T[:, :1]
    visible = columns == key_segments[0]
    if shape.causal:
        first = pl.program_id(1) * t
        place = first + jax.lax.broadcasted_iota(jnp.int32, (t, s), 0)
        visible &= place >= jax.lax.broadcasted_iota(jnp.int32, (t, s), 1)
    return visible


def _weights(query, key, mine, visible) -> jax.Array:
    """Returns the softmax (t,s) of one head in float32.

    Zeros in the other heads' lanes of the queries leave those heads out of the scores.
    """
    query = jnp.where(mine, query, 0).astype(query.dtype)
    scores = jnp.where(visible, _multiply("tk,sk->ts", query, key), _NEVER)
    weights = jnp.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _multiply(subscripts: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32)
