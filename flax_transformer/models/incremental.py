"""Decoding step by step: the Transformer's features, one position of every beam at a time.

Letters: b batch, w beam width, s source, t target, d model, h heads, k head width, v vocabulary.

    cache = model.start_cache(memory, source_segments, t, w)      nothing written yet
    logits, cache = model.decode_step(ids, position, cache)       ids (b,w) at `position` are added
    cache = model.grow_cache(cache, 2 * t)                        when there is no room left

The parameters are those of the full pass (`Transformer.decode`), to which every step is equal. What
earlier positions leave to later ones is their keys and values, in slots that `ops/beam_cache.py`
draws; what the source leaves is its keys and values of every layer, computed once.

A loop of steps prepares the parameters once:

    step_weights = model.apply({"params": params}, method="step_weights")
    model.apply({"params": params, STEP_WEIGHTS: step_weights}, ids, position, cache, method=...)
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from flax_transformer.models.family import STEP_WEIGHTS
from flax_transformer.models.transformer import DecoderLayer, Transformer
from flax_transformer.ops import beam_cache
from flax_transformer.ops.kernels import ops_for

Cache = dict[str, Any]


class IncrementalTransformer(Transformer):
    """The Transformer, which can also be asked for one position after the other."""

    def start_cache(
        self, memory: jax.Array, source_segments: jax.Array, max_steps: int, beam_size: int
    ) -> Cache:
        """The state of a decoder that has written nothing.

        memory           (b,s,d)
        source_segments  (b,s), 0 for padding
        max_steps        t, the positions for which there is room
        leaves           (1,b,w,...); those that all beams share (1,b,1,...)
        """
        layers = [
            _start_layer(self._layer(params), memory, max_steps, beam_size)
            for params in self._layer_params()
        ]
        return {
            "layers": layers,
            "ancestors": beam_cache.empty_ancestors(memory.shape[0], beam_size, max_steps),
            "source_mask": (source_segments != 0)[None, :, None],
        }

    def grow_cache(self, cache: Cache, max_steps: int) -> Cache:
        """`cache` with room for `max_steps` positions, no fewer than it had."""
        slots = max_steps * cache["ancestors"].shape[2]
        layers = []
        for layer in cache["layers"]:
            keys, values = beam_cache.grow_slots(layer["self_key"], layer["self_value"], slots)
            layers.append(layer | {"self_key": keys, "self_value": values})
        ancestors = beam_cache.grow_ancestors(cache["ancestors"], max_steps)
        return cache | {"layers": layers, "ancestors": ancestors}

    def decode_step(
        self, ids: jax.Array, position: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Logits (b,w,v) of the token after `ids` (b,w), which stand at `position` (), and the
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
        weights = self.variables.get(STEP_WEIGHTS) or self.step_weights()
        ancestors = beam_cache.mark_own(cache["ancestors"], position)
        source_mask = jnp.broadcast_to(mask, (b, w, mask.shape[-1]))
        x = self.embedding(ids, jnp.full((b, w), position), ancestors.shape[3])  # bwd
        layers = []
        for params, old in zip(weights["layers"], cache["layers"], strict=True):
            layer = self._layer(params)
            x, new, attention = _step_layer(layer, x, old, position, ancestors, source_mask)
            layers.append(new)
        cache = cache | {"layers": layers, "ancestors": ancestors}
        x = self.output.features(self.decoder_norm(x) if self.config.norm == "pre" else x)
        return self.logits(x, weights["table"]), cache, attention.mean(axis=1)

    def step_weights(self) -> dict[str, Any]:
        """What every step reads of the parameters: each layer's own, and the output table, with
        matrices in the type of products.

        A step is so short that it would show if it cut them out of the stacks, or rounded them:
        XLA leaves both in a search's loop.
        """
        return {
            "layers": [self._rounded(params) for params in self._layer_params()],
            "table": self._rounded(self.output_table()),
        }

    def _layer_params(self) -> list[Any]:
        """The parameters of each layer. A scan over layers would copy their caches too."""
        stacked = self.decoder.variables["params"]
        layers = range(self.config.num_decoder_layers)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in layers]

    def _rounded(self, params: Any) -> Any:
        """`params` as products take them; vectors stay as they are."""
        dtype = jnp.dtype(self.config.compute_dtype)
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, params)

    def _layer(self, params: Any) -> DecoderLayer:
        return DecoderLayer(self.config, parent=None).bind({"params": params})


def _start_layer(layer: DecoderLayer, memory: jax.Array, max_steps: int, beam_size: int) -> Cache:
    """A layer's part of `start_cache`."""
    dtype = beam_cache.cache_dtype(layer.config.compute_dtype)
    key, value = layer.cross_attention.keys_and_values(memory)  # bshk
    b, (_, h, k) = memory.shape[0], layer.self_attention.key.shape
    keys, values = beam_cache.empty_slots(b, beam_size, max_steps, h, k, dtype)
    source_keys, source_values = beam_cache.source_slots(key, value, dtype)
    return {
        "self_key": keys,
        "self_value": values,
        "source_key": source_keys,
        "source_value": source_values,
    }


def _step_layer(
    layer: DecoderLayer,
    x: jax.Array,
    cache: Cache,
    position: jax.Array,
    ancestors: jax.Array,
    source_mask: jax.Array,
) -> tuple[jax.Array, Cache, jax.Array]:
    """One position of every beam, `x` (b,w,d), through one layer.

    Returns the new `x`, the cache, and the weights (b,h,w,s) of the attention to the source.
    """
    ops, attention, cross_attention = (
        ops_for(layer.config),
        layer.self_attention,
        layer.cross_attention,
    )
    written: Cache = {}
    seen: Cache = {}

    def attend_to_prefix(y: jax.Array) -> jax.Array:
        key, value = attention.keys_and_values(y)  # bwhk
        keys, values = beam_cache.write(
            cache["self_key"], cache["self_value"], key, value, position
        )
        written.update(self_key=keys, self_value=values)
        heads = ops.attend_to_prefix(attention.queries(y), keys, values, ancestors)  # bwhk
        return attention.merge_heads(heads)  # bwd

    def attend_to_source(y: jax.Array) -> jax.Array:
        keys, values = cache["source_key"], cache["source_value"]
        query = cross_attention.queries(y)  # bwhk
        heads, seen["weights"] = ops.attend_to_source(query, keys, values, source_mask)
        return cross_attention.merge_heads(heads)  # bwd

    x = layer.self_residual(attend_to_prefix, x)
    x = layer.cross_residual(attend_to_source, x)
    x = layer.feed_forward_residual(layer.feed_forward, x)
    return x, cache | written, seen["weights"]
