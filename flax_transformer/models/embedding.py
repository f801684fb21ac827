"""Token embeddings and positions (Sections 3.4 and 3.5)."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.config import TransformerConfig
from flax_transformer.models.parameters import named
from flax_transformer.ops.dropout import Dropout
from flax_transformer.parallel.sharding import gather_fsdp, keep_rows


def sinusoids(positions: jax.Array, d_model: int) -> jax.Array:
    """Position encodings (..., d_model) in float32 of integer `positions` (...).

    PE(pos, 2i) = sin(pos / 10000^(2i/d)) and PE(pos, 2i+1) = cos(the same) (Section 3.5).
    """
    even = jnp.arange(0, d_model, 2, dtype=jnp.float32)
    rates = jnp.expand_dims(10_000.0 ** (-even / d_model), range(positions.ndim))
    angles = positions[..., None].astype(jnp.float32) * rates
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return pairs.reshape(*positions.shape, d_model)


class Embedding(nn.Module):
    """One table for source, target and output (Section 3.4), with positions added and dropped out.

    Vectors are scaled by sqrt(d) on the way in; the output projection uses the table as it is.
    """

    config: TransformerConfig
    vocabulary_size: int

    def setup(self):
        config = self.config
        scale = config.d_model**-0.5
        table = named(nn.initializers.normal(scale), "vd")
        self.table = self.param("table", table, (self.vocabulary_size, config.d_model))
        if config.positions == "learned":
            learned = named(nn.initializers.normal(0.02), "pd")
            shape = (config.max_positions, config.d_model)
            self.position_table = self.param("positions", learned, shape)
        self.dropout = Dropout(config.dropout)

    def __call__(self, ids: jax.Array, positions: jax.Array, num_positions: int) -> jax.Array:
        """Embeds `ids` (b,t) at `positions` (b,t), all less than `num_positions`: (b,t,d)."""
        dims = chex.Dimensions(b=ids.shape[0], t=ids.shape[1], d=self.config.d_model)
        chex.assert_shape([ids, positions], dims["bt"])
        vectors = gather_fsdp(self.table, "vd")[ids] * dims.d**0.5
        if self.config.positions == "learned":
            encodings = self.position_table
        else:
            encodings = sinusoids(jnp.arange(num_positions), dims.d)
        x = self.dropout(keep_rows(vectors + encodings[positions]))
        chex.assert_shape(x, dims["btd"])
        return x.astype(self.config.compute_dtype)
