"""Attention by cuDNN, whose scores never leave the chip's fast memory (NVIDIA only).

Letters: b batch, t query position, s key position, h heads, k width of a head.
"""

import jax
import jax.numpy as jnp

from flax_transformer.ops import gpus
from flax_transformer.runtime.determinism import kernels_are_deterministic

FORWARD_CALL = "dot_product_attention_fwd_wrapper"
"""The primitive that jax makes of cuDNN's forward pass. Its results are the heads and the softmax
statistics. The backward pass takes both, so a remat policy must keep them together: computing
either again costs the whole call. jax has no public name for them."""

BACKWARD_CALL = "dot_product_attention_bwd_wrapper"
"""The primitive of the backward pass."""


def fits(query: jax.Array | jax.ShapeDtypeStruct, key: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Returns whether cuDNN takes queries (b,t,h,k) and keys (b,s,h,k), in both directions.

    Asks jax, since what it refuses (widths of heads, lengths, no cuDNN) changes with its version,
    with cuDNN's and with the GPU. Checks itself what only the compiler would refuse.
    """
    if query.dtype != jnp.bfloat16 or not gpus.all_are(gpus.run_kernels):
        return False
    if kernels_are_deterministic():
        # The backward pass sums by atomic additions. Some GPUs and versions of cuDNN have another
        # one for these arrays, but nothing tells which.
        return False
    mask = jax.ShapeDtypeStruct((query.shape[0], query.shape[1], key.shape[1]), jnp.bool)
    query, key = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query, key))
    try:
        jax.eval_shape(jax.grad(_sum, argnums=(0, 1, 2)), query, key, key, mask)
    except (RuntimeError, ValueError):
        return False
    return True


def cudnn_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
) -> jax.Array:
    """Computes equation 1 with `mask` bool (b,t,s), for arrays that `fits` accepts."""
    return jax.nn.dot_product_attention(
        query, key, value, mask=mask[:, None], implementation="cudnn"
    )


def _sum(query, key, value, mask) -> jax.Array:
    return cudnn_attention(query, key, value, mask).astype(jnp.float32).sum()
