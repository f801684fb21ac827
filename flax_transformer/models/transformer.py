"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017): equation 1 to figure 1.

    b batch   s source   t target   d model   h heads   k head width   f feed-forward   v vocabulary

Letters at the end of a line are the axes of its result. Rows are packed: `segments` number the
sentence pairs of a row from 1, 0 is padding, and no position sees another pair's. What `ops` names
is computed as the paper says, or faster and equal (`ops/`).
"""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import normal, ones, xavier_uniform, zeros

from flax_transformer.batch import Batch
from flax_transformer.config import RecurrentConfig, TransformerConfig
from flax_transformer.models import conventions
from flax_transformer.models.dropout import Dropout
from flax_transformer.models.parameters import output_init, projection_init, with_axes
from flax_transformer.models.tap import Tap
from flax_transformer.ops.kernels import ops_for
from flax_transformer.ops.rounding import times
from flax_transformer.parallel.sharding import constrain_rows


def scaled_dot_product_attention(query, key, value, mask, einsum, tap) -> jax.Array:
    """softmax(Q K^T / sqrt(k)) V, of every head (Section 3.2.1, equation 1).

    query       (b,t,h,k)
    key, value  (b,s,h,k)
    mask        (b,t,s), true where t may see s
    result      (b,t,h,k); of a query that may see nothing, the mean of all values
    """
    chex.assert_equal_shape([key, value])
    chex.assert_shape(mask, (*query.shape[:2], key.shape[1]))
    query = times(query, query.shape[-1] ** -0.5)  # bthk
    scores = einsum("bthk,bshk->bhts", query, key, out_dtype=jnp.float32)
    # Finite, so that a row without any visible key stays free of NaN.
    scores = jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min)  # bhts
    weights = tap(jax.nn.softmax(scores, axis=-1))  # bhts
    return einsum("bhts,bshk->bthk", weights, value)


class MultiHeadAttention(nn.Module):
    """Concat(head_1 ... head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V) (3.2.2)."""

    config: TransformerConfig | RecurrentConfig
    heads_left: int | None = None  # after pruning; by default all of num_heads
    causal: bool = False

    def setup(self):
        d, k = self.config.d_model, self.config.d_model // self.config.num_heads
        h = self.heads_left or self.config.num_heads
        self.query = self.param("query", with_axes(projection_init, "dhk"), (d, h, k))
        self.key = self.param("key", with_axes(projection_init, "dhk"), (d, h, k))
        self.value = self.param("value", with_axes(projection_init, "dhk"), (d, h, k))
        self.output = self.param("output", with_axes(output_init, "hkd"), (h, k, d))
        self.bias = conventions.ProjectionBiases(self.config, h)
        self.tap = Tap()

    def __call__(self, x, memory, segments, memory_segments) -> jax.Array:
        """Looks from `x` (b,t,d) in `segments` (b,t) at `memory` (b,s,d) in `memory_segments`."""
        ops = ops_for(self.config)
        formula = partial(scaled_dot_product_attention, einsum=ops.einsum, tap=self.tap)
        query, (key, value) = self.queries(x), self.keys_and_values(memory)  # bthk, bshk
        heads = ops.attention(formula, query, key, value, segments, memory_segments, self.causal)
        return self.merge_heads(heads)  # btd

    def queries(self, x: jax.Array) -> jax.Array:
        return self.bias("query", ops_for(self.config).einsum("btd,dhk->bthk", x, self.query))

    def keys_and_values(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        einsum = ops_for(self.config).einsum
        key = self.bias("key", einsum("bsd,dhk->bshk", memory, self.key))
        return key, self.bias("value", einsum("bsd,dhk->bshk", memory, self.value))

    def merge_heads(self, heads: jax.Array) -> jax.Array:
        return self.bias("output", ops_for(self.config).einsum("bthk,hkd->btd", heads, self.output))


class FeedForward(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2 at every position (Section 3.3, equation 2)."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ops, d, f = ops_for(self.config), self.config.d_model, self.config.d_ff
        w1 = self.param("w1", with_axes(xavier_uniform(), "df"), (d, f))
        b1 = self.param("b1", with_axes(zeros, "f"), (f,))
        w2 = self.param("w2", with_axes(xavier_uniform(), "fd"), (f, d))
        b2 = self.param("b2", with_axes(zeros, "d"), (d,))
        hidden = ops.add_bias(ops.einsum("btd,df->btf", x, w1), b1)  # btf
        hidden = conventions.activate(self.config, hidden)  # max(0, .) in the paper
        return ops.add_bias(ops.einsum("btf,fd->btd", hidden, w2), b2)  # btd


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the width (Ba et al. 2016)."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", with_axes(ones, "d"), x.shape[2:])
        bias = self.param("bias", with_axes(zeros, "d"), x.shape[2:])
        return ops_for(self.config).layer_norm(x, scale, bias, self.config.norm_epsilon)  # btd


class Residual(nn.Module):
    """LayerNorm(x + Dropout(Sublayer(x))) (Section 5.4), or x + Dropout(Sublayer(LayerNorm(x)))."""

    config: TransformerConfig

    def setup(self):
        self.norm, self.dropout = LayerNorm(self.config), Dropout(self.config)

    def __call__(self, sublayer, x: jax.Array, *arguments) -> jax.Array:
        if self.config.norm == "pre":
            return constrain_rows(x + self.dropout(sublayer(self.norm(x), *arguments)))
        return constrain_rows(self.norm(x + self.dropout(sublayer(x, *arguments))))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward (figure 1, left)."""

    config: TransformerConfig

    def setup(self):
        config, heads = self.config, self.config.encoder_heads
        self.attention, self.feed_forward = MultiHeadAttention(config, heads), FeedForward(config)
        self.attention_residual, self.feed_forward_residual = Residual(config), Residual(config)

    def __call__(self, x: jax.Array, segments: jax.Array) -> tuple[jax.Array, None]:
        """`x` (b,s,d), `segments` (b,s); returns the new `x`, and nothing to stack over layers."""
        x = self.attention_residual(lambda y: self.attention(y, y, segments, segments), x)
        return self.feed_forward_residual(self.feed_forward, x), None


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the memory and feed-forward (figure 1, right)."""

    config: TransformerConfig

    def setup(self):
        config = self.config
        self.self_attention = MultiHeadAttention(config, config.decoder_heads, causal=True)
        self.cross_attention = MultiHeadAttention(config, config.cross_heads)
        self.self_residual, self.cross_residual = Residual(config), Residual(config)
        self.feed_forward, self.feed_forward_residual = FeedForward(config), Residual(config)

    def __call__(self, x, memory, segments, source_segments) -> tuple[jax.Array, None]:
        """`x` (b,t,d), `memory` (b,s,d), `segments` (b,t), `source_segments` (b,s)."""
        x = self.self_residual(lambda y: self.self_attention(y, y, segments, segments), x)
        x = self.cross_residual(self.cross_attention, x, memory, segments, source_segments)
        return self.feed_forward_residual(self.feed_forward, x), None


def sinusoids(num_positions: int, d_model: int) -> jax.Array:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(the same) (Section 3.5), (p,d)."""
    rates = 10_000.0 ** (-jnp.arange(0, d_model, 2, dtype=jnp.float32) / d_model)
    angles = jnp.arange(num_positions, dtype=jnp.float32)[:, None] * rates[None]
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(num_positions, d_model)


class Embedding(nn.Module):
    """Rows of a table times sqrt(d) (Section 3.4), plus positions (3.5), dropped out (5.4)."""

    config: TransformerConfig
    vocabulary_size: int

    def setup(self):
        d, v, p = self.config.d_model, self.vocabulary_size, self.config.max_positions
        self.table = self.param("table", with_axes(normal(d**-0.5), "vd"), (v, d))
        if self.config.positions == "learned":  # Table 3, row E
            self.position_table = self.param("positions", with_axes(normal(0.02), "pd"), (p, d))
        self.dropout = Dropout(self.config)

    def __call__(self, ids: jax.Array, positions: jax.Array, num_positions: int) -> jax.Array:
        """Embeds `ids` (b,t) at `positions` (b,t), all less than `num_positions`: (b,t,d)."""
        formula = conventions.fairseq_sinusoids if self.config.positions == "fairseq" else sinusoids
        learned, d = self.config.positions == "learned", self.config.d_model
        encodings = self.position_table if learned else formula(num_positions, d)  # pd
        vectors = conventions.scaled(self.config, ops_for(self.config).lookup(self.table, ids))
        x = self.dropout(constrain_rows(vectors + encodings[positions]))  # btd
        return x.astype(self.config.compute_dtype)


class Transformer(nn.Module):
    """Encoder, decoder and the table that both and the output share (figure 1, Section 3.4)."""

    config: TransformerConfig
    vocabulary_size: int

    def setup(self):
        config, stack = self.config, ops_for(self.config).stack_layers
        self.embedding = Embedding(config, self.vocabulary_size)
        own = config.own_source_table
        self.source_embedding = Embedding(config, self.vocabulary_size) if own else self.embedding
        self.output = conventions.Output(config, self.vocabulary_size)
        self.encoder = stack(EncoderLayer, config, config.num_encoder_layers, 1)
        self.decoder = stack(DecoderLayer, config, config.num_decoder_layers, 3)
        if config.norm == "pre":
            self.encoder_norm, self.decoder_norm = LayerNorm(config), LayerNorm(config)

    def __call__(self, batch: Batch) -> jax.Array:
        """The decoder's features (b,t,d) for a packed batch, fed the true target."""
        memory = self.encode(batch.source_ids, batch.source_segments, batch.source_positions)
        target = (batch.target_inputs, batch.target_segments, batch.target_positions)
        return self.decode(*target, memory, batch.source_segments)

    def encode(self, ids: jax.Array, segments: jax.Array, positions: jax.Array) -> jax.Array:
        """The memory (b,s,d) of source `ids` (b,s)."""
        chex.assert_equal_shape([ids, segments, positions])
        x, _ = self.encoder(self.source_embedding(ids, positions, ids.shape[1]), segments)  # bsd
        return self.encoder_norm(x) if self.config.norm == "pre" else x

    def decode(self, ids, segments, positions, memory, source_segments) -> jax.Array:
        """Features (b,t,d) of target `ids` (b,t), of which t sees those up to t and the memory."""
        chex.assert_equal_shape([ids, segments, positions])
        chex.assert_shape(source_segments, memory.shape[:2])
        x = self.embedding(ids, positions, ids.shape[1])  # btd
        x, _ = self.decoder(x, memory, segments, source_segments)  # btd
        return self.output.features(self.decoder_norm(x) if self.config.norm == "pre" else x)

    def output_table(self) -> jax.Array:
        """The matrix (v,d) whose product with features gives logits: the embedding, tied."""
        return self.output.table(self.embedding.table)

    def logits(self, features: jax.Array, table: jax.Array | None = None) -> jax.Array:
        """Scores (b,t,v) of every token before the softmax, for features (b,t,d) (Section 3.4)."""
        table, einsum = self.output_table() if table is None else table, ops_for(self.config).einsum
        return einsum("btd,vd->btv", features, table, out_dtype=jnp.float32)
