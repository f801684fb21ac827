"""Decoding one token at a time against the full pass."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.samples import RECURRENT, recurrent

from flax_transformer.errors import UserError
from flax_transformer.models import build_model

SENTENCES, BEAMS, STEPS = 2, 3, 6


class Decoder:
    """A small model with random parameters, and a source of two sentences of unequal length."""

    def __init__(self, config, params):
        model = build_model(config.model, config.tokenizer.vocabulary_size)
        random = np.random.default_rng(1)
        source = random.integers(4, 304, (SENTENCES, 9))
        self.source_segments = (np.arange(9) < np.array([[9], [5]])).astype(np.int32)
        self.ids = random.integers(4, 304, (SENTENCES, BEAMS, STEPS))
        positions = np.broadcast_to(np.arange(9), (SENTENCES, 9))
        self.variables = {"params": jax.device_put(params)}
        self.memory = jax.jit(model.apply, static_argnames="method")(
            self.variables, source, self.source_segments, positions, method="encode"
        )
        self.start = model.bind(self.variables).start_cache
        self.grow = model.bind(self.variables).grow_cache
        self.step = jax.jit(partial(model.apply, self.variables, method="decode_step"))
        self.step_with_attention = jax.jit(
            partial(model.apply, self.variables, method="decode_step_with_attention")
        )
        self.model = model

    def one_at_a_time(self, ids, room=STEPS):
        """Logits (b,w,t,v); the cache has room for `room` positions until more are needed."""
        cache = self.start(self.memory, self.source_segments, room, BEAMS)
        for leaf in jax.tree.leaves(cache):
            assert leaf.shape[1] == SENTENCES
            assert leaf.shape[2] in (1, BEAMS)
        columns = []
        for position in range(STEPS):
            if position == room:
                cache = self.grow(cache, STEPS)
            logits, cache = self.step(ids[:, :, position], jnp.asarray(position), cache)
            chex.assert_shape(logits, (SENTENCES, BEAMS, 304))
            chex.assert_type(logits, jnp.float32)
            columns.append(logits)
        return np.stack(columns, axis=2)

    def all_at_once(self, ids):
        """Logits (b,w,t,v), every beam as a row of its own."""

        def decode(flat, memory, source_segments):
            positions = jnp.broadcast_to(jnp.arange(STEPS), flat.shape)
            features = self.model.apply(
                self.variables, flat, jnp.ones_like(flat), positions, memory, source_segments,
                method="decode",
            )  # fmt: skip
            return self.model.apply(self.variables, features, method="logits")

        flat = ids.reshape(SENTENCES * BEAMS, STEPS)
        memory, segments = jax.tree.map(
            lambda x: np.repeat(x, BEAMS, axis=0), (self.memory, self.source_segments)
        )
        return jax.jit(decode)(flat, memory, segments).reshape(SENTENCES, BEAMS, STEPS, -1)


TRANSFORMERS = {
    "post-learned": {"norm": "post", "positions": "learned"},
    "pre-sinusoidal": {"norm": "pre", "positions": "sinusoidal"},
    "imported": {
        "positions": "fairseq",
        "activation": "swish",
        "attention_biases": True,
        "output_bias": "learned",
        "own_source_table": True,
        "own_output_table": True,
    },
}


@pytest.fixture(scope="module", params=[*TRANSFORMERS, *RECURRENT])
def decoder(request, small_config, random_params):
    if request.param in RECURRENT:
        config = recurrent(small_config, request.param)
    else:
        config = transformer_config(small_config, request.param)
    return Decoder(config, random_params(config))


@pytest.fixture(scope="module", params=TRANSFORMERS)
def transformer(request, small_config, random_params):
    config = transformer_config(small_config, request.param)
    return Decoder(config, random_params(config))


def transformer_config(small_config, variant):
    model = dataclasses.replace(small_config.model, **TRANSFORMERS[variant])
    return dataclasses.replace(small_config, model=model)


def test_equals_the_full_pass(decoder):
    chex.assert_trees_all_close(
        decoder.one_at_a_time(decoder.ids), decoder.all_at_once(decoder.ids), rtol=1e-4, atol=1e-4
    )


def test_room_added_later_changes_nothing(decoder):
    chex.assert_trees_all_close(
        decoder.one_at_a_time(decoder.ids, room=2), decoder.one_at_a_time(decoder.ids), atol=1e-5
    )


def test_the_cache_follows_its_hypotheses(decoder):
    """After each step every beam goes on from another one's prefix, as in beam search."""
    random = np.random.default_rng(2)
    ids = decoder.ids[:, :, 0].copy()[:, :, None]
    cache = decoder.start(decoder.memory, decoder.source_segments, STEPS, BEAMS)
    for position in range(STEPS):
        logits, cache = decoder.step(ids[:, :, -1], jnp.asarray(position), cache)
        if position < STEPS - 1:
            parents = random.integers(0, BEAMS, (SENTENCES, BEAMS))
            ids = np.take_along_axis(ids, parents[:, :, None], axis=1)
            ids = np.concatenate([ids, decoder.ids[:, :, position + 1, None]], axis=2)
            cache = jax.tree.map(partial(move, parents), cache)
    chex.assert_trees_all_close(logits, decoder.all_at_once(ids)[:, :, -1], rtol=1e-4, atol=1e-4)


def move(parents, leaf):
    """A leaf of the cache after beam j has become that of `parents` (b,w)."""
    rows = np.arange(SENTENCES)[:, None]
    return leaf if leaf.shape[2] == 1 else leaf[:, rows, parents]


def test_transformers_move_no_keys_and_values(transformer):
    cache = transformer.start(transformer.memory, transformer.source_segments, STEPS, BEAMS)
    assert all(leaf.shape[2] == 1 for leaf in jax.tree.leaves(cache["layers"]))


def test_attention_is_that_of_the_step_over_the_true_source(decoder):
    cache = decoder.start(decoder.memory, decoder.source_segments, STEPS, BEAMS)
    inputs = (decoder.ids[:, :, 0], jnp.asarray(0), cache)
    if getattr(decoder.model.config, "attention", None) == "none":
        with pytest.raises(UserError, match=r"model\.attention is none"):
            decoder.step_with_attention(*inputs)
        return
    logits, _, attention = decoder.step_with_attention(*inputs)
    chex.assert_trees_all_close(logits, decoder.step(*inputs)[0], atol=1e-5)
    chex.assert_shape(attention, (SENTENCES, BEAMS, 9))
    chex.assert_type(attention, jnp.float32)
    chex.assert_trees_all_close(attention.sum(axis=2), np.ones((SENTENCES, BEAMS)), atol=1e-5)
    seen = np.broadcast_to(decoder.source_segments[:, None] > 0, attention.shape)
    np.testing.assert_array_equal(attention > 0, seen)


def test_attention_is_the_mean_over_the_heads_of_the_last_layer(transformer):
    """Changing the last layer's source keys changes it; changing what comes after does not."""
    cache = transformer.start(transformer.memory, transformer.source_segments, STEPS, BEAMS)

    def attention(name, factor):
        layers = [*cache["layers"]]
        layers[-1] = layers[-1] | {name: factor * layers[-1][name]}
        inputs = (transformer.ids[:, :, 0], jnp.asarray(0), cache | {"layers": layers})
        return transformer.step_with_attention(*inputs)[2]

    as_it_is = attention("source_key", 1)
    chex.assert_trees_all_equal(attention("source_value", 2), as_it_is)
    seen = (
        transformer.source_segments[:, None]
        / transformer.source_segments.sum(axis=1)[:, None, None]
    )
    even = np.broadcast_to(seen, as_it_is.shape)
    chex.assert_trees_all_close(attention("source_key", 0), even, atol=1e-5)
    assert np.abs(as_it_is - even).max() > 1e-3


def test_beams_do_not_leak(decoder):
    before = decoder.one_at_a_time(decoder.ids)
    ids = decoder.ids.copy()
    ids[0, 1, 2] = ids[0, 1, 2] % 200 + 50
    changed = (decoder.one_at_a_time(ids) != before).any(axis=-1)
    expected = np.zeros((SENTENCES, BEAMS, STEPS), bool)
    expected[0, 1, 2:] = True
    np.testing.assert_array_equal(changed, expected)
