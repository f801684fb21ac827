"""Sequence to sequence with recurrent networks: Sutskever et al. 2014 without attention, Bahdanau
et al. 2015 and Luong et al. 2015 with it.

Letters: b batch, w beam width, s source length, t target length, d width, v vocabulary.
It offers the functions of a `Family`, for the same packed rows.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.config import RecurrentConfig
from flax_transformer.errors import UserError
from flax_transformer.models.dropout import Dropout
from flax_transformer.models.parameters import with_axes
from flax_transformer.models.recurrent.decoder import Decoder
from flax_transformer.models.recurrent.encoder import Encoder, Memory
from flax_transformer.models.recurrent.scheduled_sampling import sampled_inputs
from flax_transformer.ops.kernels import ops_for

Cache = dict[str, Any]


class WordEmbedding(nn.Module):
    """One table for source, target and output, as in the Transformer; order needs no encoding."""

    config: RecurrentConfig
    vocabulary_size: int

    def setup(self):
        d = self.config.d_model
        table = with_axes(nn.initializers.normal(d**-0.5), "vd")
        self.table = self.param("table", table, (self.vocabulary_size, d))
        self.dropout = Dropout(self.config)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Returns the vectors (...,d) of `ids` (...)."""
        vectors = self.dropout(self.table[ids] * self.config.d_model**0.5)
        return vectors.astype(self.config.compute_dtype)


class Seq2Seq(nn.Module):
    """Encoder, decoder and the embedding that they share."""

    config: RecurrentConfig
    vocabulary_size: int

    def setup(self):
        self.embedding = WordEmbedding(self.config, self.vocabulary_size)
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def __call__(self, batch, teacher_forcing: jax.Array | None = None) -> jax.Array:
        """Returns the decoder's features (b,t,d) for a packed batch.

        teacher_forcing  (), the probability of feeding the true token rather than the model's own
                         (Bengio et al. 2015); without it the true token is always fed
        """
        memory = self.encode(batch.source_ids, batch.source_segments, batch.source_positions)
        inputs = batch.target_inputs
        if teacher_forcing is not None:
            forced = jax.random.uniform(self.make_rng("dropout"), inputs.shape) < teacher_forcing
            inputs = sampled_inputs(self.decoder, self.embedding.table, batch, memory, forced)
        return self.decode(
            inputs, batch.target_segments, batch.target_positions, memory, batch.source_segments
        )

    def encode(self, ids: jax.Array, segments: jax.Array, positions: jax.Array) -> Memory:
        """Returns the memory of source `ids` (b,s)."""
        chex.assert_equal_shape([ids, segments, positions])
        chex.assert_rank(ids, 2)
        return self.encoder(self.embedding(ids.T), segments)

    def decode(
        self,
        ids: jax.Array,
        segments: jax.Array,
        positions: jax.Array,
        memory: Memory,
        source_segments: jax.Array,
    ) -> jax.Array:
        """Returns features (b,t,d) at every position of the target inputs `ids` (b,t).

        Position t sees inputs up to t, whatever comes later.
        """
        chex.assert_equal_shape([ids, segments, positions])
        features = self.decoder(self.embedding(ids.T), segments, memory, source_segments)
        return jnp.moveaxis(features, 0, 1)

    def output_table(self) -> jax.Array:
        """Returns the matrix (v,d) whose product with features gives logits: the tied embedding."""
        return self.embedding.table

    def logits(self, features: jax.Array) -> jax.Array:
        """Returns scores (b,t,v) in float32 of every token, before the softmax.

        features  (b,t,d)
        """
        einsum = ops_for(self.config).einsum
        return einsum("btd,vd->btv", features, self.output_table(), out_dtype=jnp.float32)

    def start_cache(
        self, memory: Memory, source_segments: jax.Array, max_steps: int, beam_size: int
    ) -> Cache:
        """Returns the state of a decoder that has written nothing.

        However long the target gets, it needs no more room than this.
        """
        return self.decoder.start_cache(memory, source_segments != 0, beam_size)

    def grow_cache(self, cache: Cache, max_steps: int) -> Cache:
        """Returns the same `cache`, which has room for any number of positions."""
        return cache

    def step_weights(self) -> dict[str, Any]:
        """Returns nothing: a step takes its parameters as they are."""
        return {}

    def decode_step(
        self, ids: jax.Array, position: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Returns logits (b,w,v) of the token after `ids` (b,w), and the cache with `ids` added.

        The logits equal `logits(decode(...))` at that position.
        """
        logits, cache, _ = self._step(ids, position, cache)
        return logits, cache

    def decode_step_with_attention(
        self, ids: jax.Array, position: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache, jax.Array]:
        """Returns what `decode_step` does, and the attention of each beam, (b,w,s).

        That is how much a beam looks at each source position, the mean over its heads. Raises
        `UserError` for a model without attention.
        """
        logits, cache, weights = self._step(ids, position, cache)
        if weights is None:
            raise UserError(
                "model.attention is none, so there is no attention to look at: choose a model with "
                "attention, or decode without what needs it"
            )
        return logits, cache, weights.mean(axis=1)

    def _step(self, ids: jax.Array, position: jax.Array, cache: Cache):
        chex.assert_rank([ids, position], [2, 0])
        outputs, cache = self.decoder.decode_step(self.embedding(ids), cache)
        return self.logits(outputs.features), cache, outputs.weights
