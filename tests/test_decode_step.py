"""Decoding one token at a time against the full pass."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import RECURRENT, recurrent

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
        self.step = jax.jit(
            lambda *inputs: model.apply(self.variables, *inputs, method="decode_step")
        )
        self.model = model

    def one_at_a_time(self, ids):
        """Logits (b,w,t,v)."""
        cache = self.start(self.memory, self.source_segments, STEPS, BEAMS)
        for leaf in jax.tree.leaves(cache):
            assert leaf.shape[1] == SENTENCES
            assert leaf.shape[2] in (1, BEAMS)
        columns = []
        for position in range(STEPS):
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
}


@pytest.fixture(scope="module", params=[*TRANSFORMERS, *RECURRENT])
def decoder(request, small_config, random_params):
    if request.param in RECURRENT:
        config = recurrent(small_config, request.param)
    else:
        model = dataclasses.replace(small_config.model, **TRANSFORMERS[request.param])
        config = dataclasses.replace(small_config, model=model)
    return Decoder(config, random_params(config))


def test_equals_the_full_pass(decoder):
    chex.assert_trees_all_close(
        decoder.one_at_a_time(decoder.ids), decoder.all_at_once(decoder.ids), rtol=1e-4, atol=1e-4
    )


def test_beams_do_not_leak(decoder):
    before = decoder.one_at_a_time(decoder.ids)
    ids = decoder.ids.copy()
    ids[0, 1, 2] = ids[0, 1, 2] % 200 + 50
    changed = (decoder.one_at_a_time(ids) != before).any(axis=-1)
    expected = np.zeros((SENTENCES, BEAMS, STEPS), bool)
    expected[0, 1, 2:] = True
    np.testing.assert_array_equal(changed, expected)
