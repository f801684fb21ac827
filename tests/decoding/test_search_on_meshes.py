"""The search on a mesh of any kind finds what one device finds, however different the lengths of
the translations that its devices look for.

Devices that wait for each other for ever would take the tests with them: another process searches.
"""

import dataclasses
import math
import multiprocessing
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import jax
import numpy as np
import pytest
from support.samples import recurrent

from flax_transformer.config import Config, DecodingConfig, MeshConfig
from flax_transformer.decoding.loop import stages
from flax_transformer.parallel.sharding import AXES, build_mesh
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.text.vocabulary_file import load_tokenizer
from flax_transformer.training.state import abstract_state
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.translation.translator import Translator

Sizes = tuple[int, int, int]

Translations = list[list[Hypothesis]]

ONE = (1, 1, 1)
MESHES: dict[str, list[Sizes]] = {
    "Transformer": [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2), (4, 1, 2), (1, 4, 2)],
    "recurrent": [(1, 1, 8), (2, 2, 2)],
}

# One batch of 16 rows, and two stages of the search.
DECODING = DecodingConfig(beam_size=2, extra_length=16, max_source_length=32, batch_tokens=16 * 32)

SECONDS = 400
"""Ten times what the searches take; XLA itself ends most that hang before."""


def sentences() -> list[str]:
    """16 of them, of 1 to 16 words: two for each of 8 devices."""
    generator = random.Random(0)
    words = ["the", "cat", "sees", "a", "red", "house", "and", "we", "eat", "bread", "in", "big"]
    return [" ".join(generator.choices(words, k=count)) for count in range(1, 17)]


def search(config: Config, params, tokenizer: Tokenizer, sizes: Sizes) -> Translations:
    """Of `sentences`, with `params` where training would have them."""
    devices = jax.devices()[: math.prod(sizes)]
    mesh = build_mesh(MeshConfig(**dict(zip(AXES, sizes, strict=True))), devices)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh).params)
    translator = Translator(config, tokenizer, mesh)
    return translator.translate(jax.device_put(params, shardings), sentences())


def search_all(results: Connection, models: dict[str, tuple[Config, dict]], vocabulary: Path):
    """Sends ((model, sizes), what `search` found) as soon as it is known."""
    tokenizer = load_tokenizer(vocabulary)
    for model, (config, params) in models.items():
        for sizes in (ONE, *MESHES[model]):
            results.send(((model, sizes), search(config, params, tokenizer, sizes)))


@pytest.fixture(scope="module")
def found(small_config, random_params, tmp_path_factory) -> dict[tuple[str, Sizes], Translations]:
    """What `search_all` sent before it ended or hung."""
    vocabulary = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    train_tokenizer(sentences(), small_config.tokenizer, vocabulary, seed=0)
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    transformer = dataclasses.replace(small_config.model, **layers)
    config = dataclasses.replace(small_config, decoding=DECODING, model=transformer)
    configs = {"Transformer": config, "recurrent": recurrent(config, "concat", **layers)}
    # Large enough for words to depend on the sentence.
    models = {
        name: (config, jax.tree.map(lambda leaf: 2 * leaf, random_params(config)))
        for name, config in configs.items()
    }

    processes = multiprocessing.get_context("spawn")
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=search_all, args=(sender, models, vocabulary), daemon=True)
    process.start()
    sender.close()
    received = {}
    deadline = time.monotonic() + SECONDS
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            key, translations = receiver.recv()
            received[key] = translations
    except EOFError:
        pass  # it has ended
    process.kill()
    process.join()
    return received


@pytest.mark.parametrize(
    ("model", "sizes"), [(model, sizes) for model, meshes in MESHES.items() for sizes in meshes]
)
def test_a_search_on_a_mesh_ends_and_equals_that_on_one_device(model, sizes, found):
    assert (model, sizes) in found, "this search, or one before it, hung or died"
    for line, expected in zip(found[model, sizes], found[model, ONE], strict=True):
        assert [each.text for each in line] == [each.text for each in expected]
        scores = [each.score for each in expected]
        np.testing.assert_allclose([each.score for each in line], scores, rtol=1e-4)


@pytest.mark.parametrize("model", MESHES)
def test_the_devices_have_different_things_to_do(model, found):
    """Each its own number of steps, only some of them in the second stage, and its own words."""
    first_stage, _ = stages(DECODING.max_source_length + DECODING.extra_length)
    longest = [max(each.tokens for each in line) for line in found[model, ONE]]
    shares = np.sort(longest).reshape(8, 2).max(axis=1)
    assert len(set(shares)) >= 6 and shares[0] < first_stage < shares[-1]
    assert len({line[0].text for line in found[model, ONE]}) == 16
