"""The attention of a given translation, of every model that has attention."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.samples import recurrent

from flax_transformer.config import TokenizerConfig
from flax_transformer.data.builtin import generate
from flax_transformer.diagnosis.alignment import align, forced_attention
from flax_transformer.errors import UserError
from flax_transformer.models import build_model
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID
from flax_transformer.text.tokenizer_training import train_tokenizer

V = 340
"""Enough for the characters of the built-in corpus."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    sentences = [side for pair in generate(300)["train"] for side in pair]
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    return train_tokenizer(sentences, TokenizerConfig(vocabulary_size=V), path, seed=0)


@pytest.fixture(params=["transformer", "dot", "multi_head"])
def config(request, small_config):
    config = dataclasses.replace(small_config, tokenizer=TokenizerConfig(vocabulary_size=V))
    return config if request.param == "transformer" else recurrent(config, request.param)


def test_rows_are_target_pieces_and_sum_to_one_over_the_source(config, random_params, tokenizer):
    source, target = "the cat sleeps", "le chat dort bien"
    found = align(config, random_params(config), tokenizer, source, target)
    assert found.source[-1] == found.target[-1] == "</s>"
    for pieces, text in ((found.source[:-1], source), (found.target[:-1], target)):
        assert "".join(pieces).replace("▁", " ").strip() == text
    assert found.weights.shape == (len(found.target), len(found.source))
    np.testing.assert_allclose(found.weights.sum(axis=1), 1.0, rtol=1e-5)
    assert found.weights.std(axis=0).max() > 1e-4  # not the same at every position


def test_weights_are_those_of_the_search_fed_the_target(small_config, random_params):
    """Position by position, with the token before it: row t belongs to target piece t."""
    source, target = np.array([9, 8, 7, 6, EOS_ID]), [20, 30, 40, EOS_ID]
    params = jax.device_put(random_params(small_config))
    inputs = jnp.asarray([BOS_ID, *target[:-1]])
    found = forced_attention(small_config, params, jnp.asarray(source), inputs)
    model = build_model(small_config.model, 304).bind({"params": params})
    segments = jnp.ones((1, 5), jnp.int32)
    memory = model.encode(jnp.asarray(source)[None], segments, jnp.arange(5)[None])
    cache = model.start_cache(memory, segments, 4, 1)
    for position, token in enumerate([BOS_ID, *target[:-1]]):
        ids = jnp.full((1, 1), token)
        _, cache, attention = model.decode_step_with_attention(ids, jnp.asarray(position), cache)
        np.testing.assert_allclose(found[position], attention[0, 0], rtol=1e-4, atol=1e-6)


def test_a_model_without_attention_has_no_alignment(small_config, random_params, tokenizer):
    config = recurrent(small_config, "no attention")
    with pytest.raises(UserError, match=r"model\.attention is none"):
        align(config, random_params(config), tokenizer, "the cat", "le chat")
