"""Where models that others have trained differ from the paper (config/conventions.py).

Letters: b batch, t position, p positions, d model, h heads, k head width, v vocabulary.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import normal, zeros

from flax_transformer.config import RecurrentConfig, TransformerConfig
from flax_transformer.models.parameters import with_axes
from flax_transformer.ops.kernels import ops_for

_LATER_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "swish": jax.nn.swish,
}


class ProjectionBiases(nn.Module):
    """What is added to the projections of attention: nothing in the paper."""

    config: TransformerConfig | RecurrentConfig
    heads: int

    def setup(self):
        d, h, k = self.config.d_model, self.heads, self.config.d_model // self.config.num_heads
        if self.config.attention_biases:
            self.query = self.param("query", with_axes(zeros, "hk"), (h, k))
            self.key = self.param("key", with_axes(zeros, "hk"), (h, k))
            self.value = self.param("value", with_axes(zeros, "hk"), (h, k))
            self.output = self.param("output", with_axes(zeros, "d"), (d,))

    def __call__(self, name: str, x: jax.Array) -> jax.Array:
        """Adds the bias `name` to `x`: (b,t,h,k), or (b,t,d) for "output"."""
        if not self.config.attention_biases:
            return x
        return ops_for(self.config).add_bias(x, getattr(self, name))


class Output(nn.Module):
    """The matrix that makes logits of features, tied to an embedding (Section 3.4) or not."""

    config: TransformerConfig
    vocabulary_size: int

    def setup(self):
        v, d = self.vocabulary_size, self.config.d_model
        if self.config.own_output_table:
            self.own_table = self.param("table", with_axes(normal(d**-0.5), "vd"), (v, d))
        if self.config.output_bias != "none":
            self.bias = self.param("bias", with_axes(zeros, "v"), (v,))

    def features(self, x: jax.Array) -> jax.Array:
        """`x` (b,t,d); with a bias (b,t,d+1), the last one always 1."""
        one = jnp.ones((*x.shape[:2], 1), x.dtype)
        return x if self.config.output_bias == "none" else jnp.concatenate([x, one], axis=2)

    def table(self, embedding: jax.Array) -> jax.Array:
        """The matrix (v,d) for `features`, by default the `embedding`; a bias is its last column,
        (v,d+1)."""
        table = self.own_table if self.config.own_output_table else embedding
        if self.config.output_bias == "none":
            return table
        fixed = self.config.output_bias == "fixed"
        bias = jax.lax.stop_gradient(self.bias) if fixed else self.bias
        return jnp.concatenate([table, bias[:, None]], axis=1)


def activate(config: TransformerConfig, hidden: jax.Array) -> jax.Array:
    """The paper's max(0, x), or what came after it."""
    if config.activation == "relu":
        return ops_for(config).relu(hidden)
    return _LATER_ACTIVATIONS[config.activation](hidden)


def scaled(config: TransformerConfig, vectors: jax.Array) -> jax.Array:
    """Vectors (b,t,d) times sqrt(d) (Section 3.4), or as they are."""
    return vectors * config.d_model**0.5 if config.scale_embedding else vectors


def fairseq_sinusoids(num_positions: int, d_model: int) -> jax.Array:
    """Section 3.5's (p,d) with 10000^(2i/(d-2)) and 2 as the first position.

    That is tensor2tensor's formula, and fairseq's count: 0 and 1 are no positions of text there.
    """
    rates = 10_000.0 ** (-jnp.arange(0, d_model, 2, dtype=jnp.float32) / (d_model - 2))
    angles = jnp.arange(2, num_positions + 2, dtype=jnp.float32)[:, None] * rates[None]
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(num_positions, d_model)
