"""Scaled dot-product attention and multi-head attention (Section 3.2).

Letters: b batch, t query position, s key position, d model width, h heads, k width of a head.
"""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from flax_transformer.models.parameters import named
from flax_transformer.ops import attention_gpu, attention_tpu
from flax_transformer.ops.contraction import MATRIX_PRODUCT, contract
from flax_transformer.ops.rounding import times
from flax_transformer.parallel import collectives, sharding

_HEADS = PartitionSpec(sharding.BATCH_AXES, None, ("model",))  # (b,t,h,k) and (b,s,h,k)
_ROWS = PartitionSpec(sharding.BATCH_AXES)  # (b,t) and (b,s)


def scaled_dot_product_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
) -> jax.Array:
    """softmax(Q K^T / sqrt(k)) V for every head (equation 1).

    `query` (b,t,h,k), `key` and `value` (b,s,h,k), `mask` bool (b,t,s), true where t may see s.
    Returns (b,t,h,k). A query that may see nothing gets the mean of all values. The softmax is
    computed in float32.
    """
    chex.assert_equal_shape([key, value])
    weights = attention_weights(query, key, mask)
    return contract("bhts,bshk->bthk", weights, value, query.dtype)


def attention_weights(query: jax.Array, key: jax.Array, mask: jax.Array) -> jax.Array:
    """softmax(Q K^T / sqrt(k)) of equation 1, (b,h,t,s) in float32; arguments as above."""
    dims = chex.Dimensions(
        b=query.shape[0], t=query.shape[1], s=key.shape[1], h=query.shape[2], k=query.shape[3]
    )
    chex.assert_shape(query, dims["bthk"])
    chex.assert_shape(key, dims["bshk"])
    chex.assert_shape(mask, dims["bts"])
    scores = contract("bthk,bshk->bhts", times(query, dims.k**-0.5), key, query.dtype, jnp.float32)
    # Finite, so that a row without any visible key stays free of NaN.
    scores = jnp.where(mask[:, None, :, :], scores, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores, axis=-1)


def packed_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    query_segments: jax.Array,
    key_segments: jax.Array,
    causal: bool,
) -> jax.Array:
    """Equation 1 for packed rows: a position sees those of its own segment, and if `causal` none
    that comes later.

    `query` (b,t,h,k), `key` and `value` (b,s,h,k), `query_segments` (b,t), `key_segments` (b,s);
    returns (b,t,h,k). On an accelerator its fused kernel does it, which never stores the scores;
    elsewhere, or where the kernel does not take these shapes, `scaled_dot_product_attention`.
    """
    segments = (query_segments, key_segments)
    platform = collectives.platform()
    if platform == "tpu" and _tpu_kernel_fits(query, key):
        kernel = functools.partial(attention_tpu.tpu_attention, causal=causal)
        run = collectives.per_device(kernel, (_HEADS, _HEADS, _HEADS, _ROWS, _ROWS), _HEADS)
        return checkpoint_name(run(query, key, value, *segments), MATRIX_PRODUCT)
    mask = visible(*segments, causal)
    if platform == "gpu" and attention_gpu.fits(query, key):
        return attention_gpu.gpu_attention(query, key, value, mask)
    return scaled_dot_product_attention(query, key, value, mask)


def _tpu_kernel_fits(query: jax.Array, key: jax.Array) -> bool:
    """Whether the kernel takes what each device has of queries and keys."""
    own_query, own_key = (collectives.own_part(x, _HEADS) for x in (query, key))
    if own_query is None or own_key is None:
        return False
    return attention_tpu.fits(own_query, own_key)


def visible(query_segments: jax.Array, key_segments: jax.Array, causal: bool) -> jax.Array:
    """Bool (b,t,s) for segments (b,t) and (b,s): whether t may see s."""
    same = query_segments[:, :, None] == key_segments[:, None, :]
    return same & jnp.tril(jnp.ones(same.shape[1:], bool))[None] if causal else same


def attend_to_slots(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The same for one target position of w beams, over the slots of a decoder's cache.

    `query` (b,w,h,k), `key` (b,h,k,s), `value` (b,h,s,k), `mask` bool (b,w,s). Returns heads
    (b,w,h,k) and weights (b,h,w,s) in float32. Products are taken in the type of the cache.

    The beams of a sentence share one matrix product over its keys and one over its values, either
    of which has last what its product does not sum: as XLA's CPU backend wants it. Keys are ten
    times as fast as with (b,s,h,k) and 300 slots, values two to three as with (b,h,k,s) and 128.
    """
    dims = chex.Dimensions(
        b=query.shape[0], w=query.shape[1], h=query.shape[2], k=query.shape[3], s=key.shape[3]
    )
    chex.assert_shape(query, dims["bwhk"])
    chex.assert_shape(key, dims["bhks"])
    chex.assert_shape(value, dims["bhsk"])
    chex.assert_shape(mask, dims["bws"])
    scores = contract("bwhk,bhks->bhws", times(query, dims.k**-0.5), key, key.dtype, jnp.float32)
    scores = jnp.where(mask[:, None, :, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1)
    # Not bwhk at once, for which XLA's CPU backend would turn both operands of the product round.
    heads = contract("bhws,bhsk->bhwk", weights, value, value.dtype)
    return jnp.einsum("bhwk->bwhk", heads).astype(query.dtype), weights


class MultiHeadAttention(nn.Module):
    """Concat(head_1 ... head_h) W^O with head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V)
    (Section 3.2.2), without biases as in the paper.

    Kernels are stored per head, (d,h,k) and (h,k,d), so that no head is ever transposed or
    reshaped and the h axis can be split over devices.
    """

    num_heads: int
    d_model: int
    dtype: jnp.dtype
    causal: bool = False
    fused: bool = True

    def setup(self):
        # Xavier's, with the fans of the matrices that the kernels are: queries, keys and values
        # come from one of d x 3 (h k), so that each of the three starts with half the variance
        # of one of its own. With all of it, attention starts sharp and learns far more slowly.
        split = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform", 0, (1, 2))
        join = nn.initializers.variance_scaling(1, "fan_avg", "uniform", (0, 1), 2)
        shape = (self.d_model, self.num_heads, self.d_model // self.num_heads)
        self.query = self.param("query", named(split, "dhk"), shape)
        self.key = self.param("key", named(split, "dhk"), shape)
        self.value = self.param("value", named(split, "dhk"), shape)
        self.output = self.param("output", named(join, "hkd"), (*shape[1:], shape[0]))

    def __call__(
        self, x: jax.Array, memory: jax.Array, segments: jax.Array, memory_segments: jax.Array
    ) -> jax.Array:
        """Queries from `x` (b,t,d) in `segments` (b,t), keys and values from `memory` (b,s,d) in
        `memory_segments` (b,s); returns (b,t,d)."""
        query = self._queries(x)
        key, value = self.keys_and_values(memory)
        if self.fused:
            heads = packed_attention(query, key, value, segments, memory_segments, self.causal)
        else:
            mask = visible(segments, memory_segments, self.causal)
            heads = scaled_dot_product_attention(query, key, value, mask)
        return self._join(heads)

    def weights(self, x: jax.Array, memory: jax.Array, mask: jax.Array) -> jax.Array:
        """How much each position of `x` (b,t,d) looks at each of `memory` (b,s,d), for `mask`
        bool (b,t,s): (b,h,t,s) in float32."""
        return attention_weights(self._queries(x), self.keys_and_values(memory)[0], mask)

    def keys_and_values(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values (b,s,h,k) of `memory` (b,s,d)."""
        chex.assert_axis_dimension(memory, -1, self.d_model)
        return (
            contract("bsd,dhk->bshk", memory, self.key, self.dtype),
            contract("bsd,dhk->bshk", memory, self.value, self.dtype),
        )

    def attend(self, x: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
        """Queries from `x` (b,t,d), keys and values (b,s,h,k) that are already projected; `mask`
        bool (b,t,s), true where t may see s; returns (b,t,d)."""
        return self._join(scaled_dot_product_attention(self._queries(x), key, value, mask))

    def _queries(self, x: jax.Array) -> jax.Array:
        chex.assert_axis_dimension(x, -1, self.d_model)
        return contract("btd,dhk->bthk", x, self.query, self.dtype)

    def _join(self, heads: jax.Array) -> jax.Array:
        return contract("bthk,hkd->btd", heads, self.output, self.dtype)

    def attend_to_slots(
        self, x: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """As `attend` for one target position of every beam, `x` (b,w,d), over cached keys
        (b,h,k,s) and values (b,h,s,k) with `mask` (b,w,s); returns (b,w,d) and weights (b,h,w,s) in
        float32."""
        heads, weights = attend_to_slots(self._queries(x), key, value, mask)
        return self._join(heads), weights
