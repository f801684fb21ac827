"""Scaled dot-product attention and multi-head attention (Section 3.2).

Letters: b batch, t query position, s key position, d model width, h heads, k width of a head.
"""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.models.contraction import contract
from flax_transformer.models.parameters import named


def scaled_dot_product_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
) -> jax.Array:
    """softmax(Q K^T / sqrt(k)) V for every head (equation 1).

    `query` (b,t,h,k), `key` and `value` (b,s,h,k), `mask` bool (b,t,s), true where t may see s.
    Returns (b,t,h,k). A query that may see nothing gets the mean of all values. The softmax is
    computed in float32.
    """
    dims = chex.Dimensions(
        b=query.shape[0], t=query.shape[1], s=key.shape[1], h=query.shape[2], k=query.shape[3]
    )
    chex.assert_shape(query, dims["bthk"])
    chex.assert_shape([key, value], dims["bshk"])
    chex.assert_shape(mask, dims["bts"])
    dtype = query.dtype
    scores = contract("bthk,bshk->bhts", query * dims.k**-0.5, key, dtype, jnp.float32)
    # Finite, so that a row without any visible key stays free of NaN.
    scores = jnp.where(mask[:, None, :, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1)
    return contract("bhts,bshk->bthk", weights, value, dtype)


def attend_to_slots(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The same for one target position of w beams, over the slots of a decoder's cache.

    `query` (b,w,h,k), `key` and `value` (b,h,k,s), `mask` bool (b,w,s). Returns heads (b,w,h,k) and
    weights (b,h,w,s) in float32. Products are taken in the type of the cache.

    The beams of a sentence are the columns of one matrix product over its keys, whose slots lie
    side by side: as XLA's CPU backend wants it (ten times as fast as (b,s,h,k) with 300 slots),
    and as the lanes of a TPU do.
    """
    dims = chex.Dimensions(
        b=query.shape[0], w=query.shape[1], h=query.shape[2], k=query.shape[3], s=key.shape[3]
    )
    chex.assert_shape(query, dims["bwhk"])
    chex.assert_shape([key, value], dims["bhks"])
    chex.assert_shape(mask, dims["bws"])
    scores = contract("bwhk,bhks->bhws", query * dims.k**-0.5, key, key.dtype, jnp.float32)
    scores = jnp.where(mask[:, None, :, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1)
    heads = contract("bhws,bhks->bwhk", weights, value, value.dtype)
    return heads.astype(query.dtype), weights


class MultiHeadAttention(nn.Module):
    """Concat(head_1 ... head_h) W^O with head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V)
    (Section 3.2.2), without biases as in the paper.

    Kernels are stored per head, (d,h,k) and (h,k,d), so that no head is ever transposed or
    reshaped and the h axis can be split over devices.
    """

    num_heads: int
    d_model: int
    dtype: jnp.dtype

    def setup(self):
        # Fans are those of the d x (h k) matrix that the kernel is; xavier_uniform would take
        # them from the last two axes and start far too small.
        xavier = functools.partial(nn.initializers.variance_scaling, 1, "fan_avg", "uniform")
        split = named(xavier(in_axis=0, out_axis=(1, 2)), "dhk")
        join = named(xavier(in_axis=(0, 1), out_axis=2), "hkd")
        shape = (self.d_model, self.num_heads, self.d_model // self.num_heads)
        self.query = self.param("query", split, shape)
        self.key = self.param("key", split, shape)
        self.value = self.param("value", split, shape)
        self.output = self.param("output", join, (*shape[1:], shape[0]))

    def __call__(self, x: jax.Array, memory: jax.Array, mask: jax.Array) -> jax.Array:
        """Queries from `x` (b,t,d), keys and values from `memory` (b,s,d); returns (b,t,d).

        `mask` bool (b,t,s), true where t may see s.
        """
        return self.attend(x, *self.keys_and_values(memory), mask)

    def keys_and_values(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values (b,s,h,k) of `memory` (b,s,d)."""
        chex.assert_axis_dimension(memory, -1, self.d_model)
        return (
            contract("bsd,dhk->bshk", memory, self.key, self.dtype),
            contract("bsd,dhk->bshk", memory, self.value, self.dtype),
        )

    def attend(self, x: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
        """As `__call__`, with keys and values (b,s,h,k) that are already projected."""
        chex.assert_axis_dimension(x, -1, self.d_model)
        query = contract("btd,dhk->bthk", x, self.query, self.dtype)
        heads = scaled_dot_product_attention(query, key, value, mask)
        return contract("bthk,hkd->btd", heads, self.output, self.dtype)

    def attend_to_slots(
        self, x: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """As `attend` for one target position of every beam, `x` (b,w,d), over cached keys and
        values (b,h,k,s) with `mask` (b,w,s); returns (b,w,d) and weights (b,h,w,s) in float32."""
        chex.assert_axis_dimension(x, -1, self.d_model)
        query = contract("btd,dhk->bthk", x, self.query, self.dtype)
        heads, weights = attend_to_slots(query, key, value, mask)
        return contract("bthk,hkd->btd", heads, self.output, self.dtype), weights
