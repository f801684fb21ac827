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
from flax_transformer.models.contraction import MATRIX_PRODUCT, contract
from flax_transformer.models.dropout import Dropout
from flax_transformer.models.embedding import Embedding
from flax_transformer.models.parameters import named
from flax_transformer.sharding import keep_rows

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
        hidden = jax.nn.relu(contract("btd,df->btf", x, w1, dtype) + b1.astype(dtype)[None, None])
        return contract("btf,fd->btd", hidden, w2, dtype) + b2.astype(dtype)[None, None]


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016), computed in float32 and given in the compute type."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.LayerNorm(
            dtype=self.config.compute_dtype,
            scale_init=named(nn.initializers.ones_init(), "d"),
            bias_init=named(nn.initializers.zeros_init(), "d"),
            name="norm",
        )(x)


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
    return MultiHeadAttention(config.num_heads, config.d_model, dtype, causal)


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

    def memory_keys_and_values(self, _: None, memory: jax.Array) -> tuple[None, tuple]:
        """Keys and values (b,s,h,k) of the encoder's output, the same for all target positions."""
        return None, self.cross_attention.keys_and_values(memory)

    def decode_step(
        self, x: jax.Array, cache: Cache, position: jax.Array, cross_mask: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """One target position of every beam: `x` (b,w,d), `cross_mask` (b,w,s).

        The beams of a sentence stand where target positions stand in training, so that its
        source keys are kept and read once for all of them.
        """
        b, w, d = x.shape

        def attend_to_prefix(y):
            column = y.reshape(b * w, 1, d)
            new_key, new_value = self.self_attention.keys_and_values(column)
            key = _write(cache["self_key"], new_key, position)
            value = _write(cache["self_value"], new_value, position)
            t, h, k = key.shape[2:]
            visible = jnp.broadcast_to(jnp.arange(t) <= position, (b * w, 1, t))
            flat = (b * w, t, h, k)
            attended = self.self_attention.attend(
                column, key.reshape(flat), value.reshape(flat), visible
            )
            written.update(self_key=key, self_value=value)
            return attended.reshape(b, w, d)

        written = dict(cache)
        x = self.self_residual(attend_to_prefix, x)
        source_key, source_value = cache["source_key"][:, 0], cache["source_value"][:, 0]
        x = self.cross_residual(
            self.cross_attention.attend, x, source_key, source_value, cross_mask
        )
        return self.feed_forward_residual(self.feed_forward, x), written


def _write(cache: jax.Array, column: jax.Array, position: jax.Array) -> jax.Array:
    """`cache` (b,w,t,h,k) with `column` (b*w,1,h,k) at `position` of axis t."""
    b, w, _, h, k = cache.shape
    column = column.reshape(b, w, 1, h, k)
    return jax.lax.dynamic_update_slice_in_dim(cache, column, position, axis=2)


_SAVED = {
    "nothing": jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names(MATRIX_PRODUCT),
    "everything": jax.checkpoint_policies.nothing_saveable,
}


def _stack(layer, config: TransformerConfig, num_layers: int, **inputs_of_method) -> nn.Module:
    """`num_layers` copies of `layer` as one scanned module: compiled once, parameters stacked.

    `inputs_of_method` gives for each method which inputs behind the first are stacked over
    layers too (0) and which are the same for all (nn.broadcast). They must be passed by
    position: nn.scan drops keyword arguments.
    """
    methods = {
        name: {
            "variable_axes": {"params": 0},
            "split_rngs": {"params": True, "dropout": True},
            "in_axes": in_axes,
            "length": num_layers,
            "unroll": min(config.unroll_layers, num_layers),
            "metadata_params": {nn.PARTITION_NAME: "l"},
        }
        for name, in_axes in inputs_of_method.items()
    }
    # Between two turns of a loop XLA cannot find what is computed twice; in a turn it would, and
    # keep it, which undoes remat.
    prevent_cse = config.remat != "nothing" and config.unroll_layers > 1
    kept = nn.remat(layer, policy=_SAVED[config.remat], prevent_cse=prevent_cse)
    return nn.scan(kept, methods=methods)(config)


class Transformer(nn.Module):
    """Encoder, decoder and the embedding that they share (figure 1)."""

    config: TransformerConfig
    vocabulary_size: int

    def setup(self):
        config, same = self.config, nn.broadcast
        self.embedding = Embedding(config, self.vocabulary_size)
        self.encoder = _stack(EncoderLayer, config, config.num_encoder_layers, __call__=same)
        self.decoder = _stack(
            DecoderLayer,
            config,
            config.num_decoder_layers,
            __call__=(same, same, same),
            memory_keys_and_values=same,
            decode_step=(0, same, same),
        )
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
        """The state of a decoder that has written nothing, for `memory` (b,s,d).

        Leaves have axes (l,b,w,...); those that all beams share have w = 1.
        """
        config = self.config
        b, h = memory.shape[0], config.num_heads
        shape = (config.num_decoder_layers, b, beam_size, max_steps, h, config.d_model // h)
        _, (key, value) = self.decoder.memory_keys_and_values(None, memory)
        layers = {
            "self_key": jnp.zeros(shape, config.compute_dtype),
            "self_value": jnp.zeros(shape, config.compute_dtype),
            "source_key": key[:, :, None],
            "source_value": value[:, :, None],
        }
        return {"layers": layers, "source_mask": (source_segments != 0)[None, :, None]}

    def decode_step(
        self, ids: jax.Array, position: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Logits (b,w,v) of the token behind `ids` (b,w), which stand at `position` (), and the
        cache with them added. Equal to `logits(decode(...))` at that position."""
        chex.assert_rank([ids, position], [2, 0])
        (b, w), t = ids.shape, cache["layers"]["self_key"].shape[3]
        x = self.embedding(ids, jnp.full((b, w), position), t)
        mask = cache["source_mask"][0]
        cross_mask = jnp.broadcast_to(mask, (b, w, mask.shape[-1]))
        x, layers = self.decoder.decode_step(x, cache["layers"], position, cross_mask)
        if self.config.norm == "pre":
            x = self.decoder_norm(x)
        return self.logits(x), cache | {"layers": layers}
