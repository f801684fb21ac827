"""The Transformer (Section 3): the paper's figure 1, from the sub-layers up.

Letters: b batch, w beam width, s source length, t target length, d model width, h heads,
k width of a head, f feed-forward width, v vocabulary, l layers.
Rows are packed: `segments` (b,s) numbers the sentence pairs of a row from 1, 0 is padding, and
no position sees another pair's.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.config import TransformerConfig
from flax_transformer.models.attention import MultiHeadAttention
from flax_transformer.models.embedding import Embedding
from flax_transformer.models.layer_norm import LayerNorm, at_every_position
from flax_transformer.models.layer_stack import stack_layers
from flax_transformer.models.parameters import named
from flax_transformer.ops import beam_cache
from flax_transformer.ops.contraction import contract
from flax_transformer.ops.dropout import Dropout
from flax_transformer.parallel.sharding import keep_rows

Cache = dict[str, Any]


class FeedForward(nn.Module):
    """max(0, x W1 + b1) W2 + b2 at every position (equation 2)."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        d, f, dtype = self.config.d_model, self.config.d_ff, self.config.compute_dtype
        xavier, zeros = nn.initializers.xavier_uniform(), nn.initializers.zeros_init()
        w1 = self.param("w1", named(xavier, "df"), (d, f))
        b1 = self.param("b1", named(zeros, "f"), (f,))
        w2 = self.param("w2", named(xavier, "fd"), (f, d))
        b2 = self.param("b2", named(zeros, "d"), (d,))
        rows = x.shape[:2]
        hidden = contract("btd,df->btf", x, w1, dtype)
        hidden = jax.nn.relu(hidden + at_every_position(b1.astype(dtype), *rows))
        return contract("btf,fd->btd", hidden, w2, dtype) + at_every_position(
            b2.astype(dtype), *rows
        )


class Residual(nn.Module):
    """LayerNorm(x + Dropout(Sublayer(x))) (Section 5.4), or x + Dropout(Sublayer(LayerNorm(x)))."""

    config: TransformerConfig

    def setup(self):
        self.norm = LayerNorm(self.config)
        self.dropout = Dropout(self.config.dropout)

    def __call__(self, sublayer, x: jax.Array, *arguments) -> jax.Array:
        """`sublayer(x, *arguments)` maps (b,t,d) to (b,t,d)."""
        if self.config.norm == "pre":
            return keep_rows(x + self.dropout(sublayer(self.norm(x), *arguments)))
        return keep_rows(self.norm(x + self.dropout(sublayer(x, *arguments))))


def _attention(config: TransformerConfig, causal: bool = False) -> MultiHeadAttention:
    dtype = jnp.dtype(config.compute_dtype)
    return MultiHeadAttention(
        config.num_heads, config.d_model, dtype, causal, config.fused_attention
    )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward (Section 3.1)."""

    config: TransformerConfig

    def setup(self):
        self.attention = _attention(self.config)
        self.feed_forward = FeedForward(self.config)
        self.attention_residual = Residual(self.config)
        self.feed_forward_residual = Residual(self.config)

    def __call__(self, x: jax.Array, segments: jax.Array) -> tuple[jax.Array, None]:
        """`x` (b,s,d), `segments` (b,s); returns the new `x`, and nothing to stack over layers."""
        x = self.attention_residual(lambda y: self.attention(y, y, segments, segments), x)
        return self.feed_forward_residual(self.feed_forward, x), None


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the encoder's output, feed-forward (Section 3.1)."""

    config: TransformerConfig

    def setup(self):
        self.self_attention = _attention(self.config, causal=True)
        self.cross_attention = _attention(self.config)
        self.feed_forward = FeedForward(self.config)
        self.self_residual = Residual(self.config)
        self.cross_residual = Residual(self.config)
        self.feed_forward_residual = Residual(self.config)

    def __call__(
        self, x: jax.Array, memory: jax.Array, segments: jax.Array, source_segments: jax.Array
    ) -> tuple[jax.Array, None]:
        """`x` (b,t,d), `memory` (b,s,d), `segments` (b,t), `source_segments` (b,s)."""
        x = self.self_residual(lambda y: self.self_attention(y, y, segments, segments), x)
        x = self.cross_residual(self.cross_attention, x, memory, segments, source_segments)
        return self.feed_forward_residual(self.feed_forward, x), None

    def start_cache(self, memory: jax.Array, max_steps: int, beam_size: int) -> Cache:
        """The layer's part of `Transformer.start_cache`."""
        b, h, k = memory.shape[0], *self.cross_attention.query.shape[1:]
        dtype = beam_cache.cache_dtype(self.config.compute_dtype)
        key, value = self.cross_attention.keys_and_values(memory)
        keys, values = beam_cache.empty_slots(b, beam_size, max_steps, h, k, dtype)
        return {
            "self_key": keys,
            "self_value": values,
            "source_key": jnp.einsum("bshk->bhks", key)[None, :, None].astype(dtype),
            "source_value": jnp.einsum("bshk->bhsk", value)[None, :, None].astype(dtype),
        }

    def decode_step(
        self,
        x: jax.Array,
        cache: Cache,
        position: jax.Array,
        self_mask: jax.Array,
        source_mask: jax.Array,
    ) -> tuple[jax.Array, Cache, jax.Array]:
        """One target position of every beam: `x` (b,w,d), masks (b,w,s) over slots and source.

        Returns the new `x`, the cache, and the weights (b,h,w,s) of the attention to the source.
        """

        def attend_to_prefix(y):
            key, value = self.self_attention.keys_and_values(y)
            written["self_key"], written["self_value"] = beam_cache.write(
                cache["self_key"], cache["self_value"], key, value, position
            )
            return self.self_attention.attend_to_slots(
                y, written["self_key"][0, :, 0], written["self_value"][0, :, 0], self_mask
            )[0]

        def attend_to_source(y):
            key, value = cache["source_key"][0, :, 0], cache["source_value"][0, :, 0]
            heads, found["weights"] = self.cross_attention.attend_to_slots(
                y, key, value, source_mask
            )
            return heads

        written: Cache = dict(cache)
        found: dict[str, jax.Array] = {}
        x = self.self_residual(attend_to_prefix, x)
        x = self.cross_residual(attend_to_source, x)
        return self.feed_forward_residual(self.feed_forward, x), written, found["weights"]


class Transformer(nn.Module):
    """Encoder, decoder and the embedding that they share (figure 1)."""

    config: TransformerConfig
    vocabulary_size: int

    def setup(self):
        config = self.config
        self.embedding = Embedding(config, self.vocabulary_size)
        self.encoder = stack_layers(EncoderLayer, config, config.num_encoder_layers, 1)
        self.decoder = stack_layers(DecoderLayer, config, config.num_decoder_layers, 3)
        if config.norm == "pre":
            self.encoder_norm = LayerNorm(config)
            self.decoder_norm = LayerNorm(config)

    def __call__(self, batch) -> jax.Array:
        """The decoder's features (b,t,d) for a packed batch (teacher forcing)."""
        memory = self.encode(batch.source_ids, batch.source_segments, batch.source_positions)
        return self.decode(
            batch.target_inputs,
            batch.target_segments,
            batch.target_positions,
            memory,
            batch.source_segments,
        )

    def encode(self, ids: jax.Array, segments: jax.Array, positions: jax.Array) -> jax.Array:
        """The memory (b,s,d) of source `ids` (b,s)."""
        chex.assert_equal_shape([ids, segments, positions])
        chex.assert_rank(ids, 2)
        x = self.embedding(ids, positions, ids.shape[1])
        x, _ = self.encoder(x, segments)
        return self.encoder_norm(x) if self.config.norm == "pre" else x

    def decode(
        self,
        ids: jax.Array,
        segments: jax.Array,
        positions: jax.Array,
        memory: jax.Array,
        source_segments: jax.Array,
    ) -> jax.Array:
        """Features (b,t,d) at every position of the target inputs `ids` (b,t), given `memory`
        (b,s,d); position t sees inputs up to t, whatever comes later."""
        dims = chex.Dimensions(b=ids.shape[0], t=ids.shape[1], s=memory.shape[1])
        chex.assert_shape([ids, segments, positions], dims["bt"])
        chex.assert_shape(source_segments, dims["bs"])
        x = self.embedding(ids, positions, dims.t)
        x, _ = self.decoder(x, memory, segments, source_segments)
        return self.decoder_norm(x) if self.config.norm == "pre" else x

    def output_table(self) -> jax.Array:
        """The matrix (v,d) whose product with features gives logits: the embedding, tied."""
        return self.embedding.table

    def logits(self, features: jax.Array) -> jax.Array:
        """Scores (b,t,v) in float32 of every token, before the softmax, for features (b,t,d)."""
        dtype = jnp.dtype(self.config.compute_dtype)
        return contract("btd,vd->btv", features, self.output_table(), dtype, jnp.float32)

    def start_cache(
        self, memory: jax.Array, source_segments: jax.Array, max_steps: int, beam_size: int
    ) -> Cache:
        """The state of a decoder that has written nothing, for `memory` (b,s,d), with room for
        `max_steps` positions of `beam_size` hypotheses (ops/beam_cache.py).

        Leaves have axes (1,b,w,...); those that all beams share have w = 1.
        """
        layers = [layer.start_cache(memory, max_steps, beam_size) for layer in self._decoder()]
        return {
            "layers": layers,
            "ancestors": beam_cache.empty_ancestors(memory.shape[0], beam_size, max_steps),
            "source_mask": (source_segments != 0)[None, :, None],
        }

    def grow_cache(self, cache: Cache, max_steps: int) -> Cache:
        """`cache` with room for `max_steps` positions, no fewer than it had."""
        size = max_steps * cache["ancestors"].shape[2]
        layers = [
            layer
            | {
                "self_key": beam_cache.grow(layer["self_key"], size),
                "self_value": beam_cache.grow(layer["self_value"], size, axis=4),
            }
            for layer in cache["layers"]
        ]
        ancestors = beam_cache.grow(cache["ancestors"], max_steps, fill=beam_cache.NOBODY)
        return cache | {"layers": layers, "ancestors": ancestors}

    def decode_step(
        self, ids: jax.Array, position: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Logits (b,w,v) of the token behind `ids` (b,w), which stand at `position` (), and the
        cache with them added. Equal to `logits(decode(...))` at that position."""
        return self.decode_step_with_attention(ids, position, cache)[:2]

    def decode_step_with_attention(
        self, ids: jax.Array, position: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache, jax.Array]:
        """As `decode_step`, and the attention (b,w,s) to the source, which sums to one.

        It is the mean over the heads of the last layer, the one nearest to the token chosen.
        """
        chex.assert_rank([ids, position], [2, 0])
        (b, w), mask = ids.shape, cache["source_mask"][0]
        ancestors = beam_cache.stand_at(cache["ancestors"], position)
        self_mask = beam_cache.visible_slots(ancestors)
        source_mask = jnp.broadcast_to(mask, (b, w, mask.shape[-1]))
        x = self.embedding(ids, jnp.full((b, w), position), ancestors.shape[3])
        layers = []
        for layer, old in zip(self._decoder(), cache["layers"], strict=True):
            x, new, weights = layer.decode_step(x, old, position, self_mask, source_mask)
            layers.append(new)
        if self.config.norm == "pre":
            x = self.decoder_norm(x)
        cache = cache | {"layers": layers, "ancestors": ancestors}
        return self.logits(x), cache, weights.mean(axis=1)

    def _decoder(self) -> list[DecoderLayer]:
        """The decoder's layers one by one.

        A step is so short that what a scan copies, each layer's cache and parameters, would show.
        """
        layer = DecoderLayer(self.config, parent=None)
        stacked = self.decoder.variables["params"]
        return [
            layer.bind({"params": jax.tree.map(lambda leaf, i=i: leaf[i], stacked)})
            for i in range(self.config.num_decoder_layers)
        ]
