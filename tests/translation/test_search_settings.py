"""Settings of the search, from lines of text to hypotheses, with random models of both families."""

import dataclasses
import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.samples import recurrent

from flax_transformer.config import Config, DecodingConfig, MeshConfig
from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.scoring import Scoring
from flax_transformer.errors import UserError
from flax_transformer.models import build_model
from flax_transformer.models.family import STEP_WEIGHTS
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.text.sentences import TrainedLengths
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.translation import search as search_module
from flax_transformer.translation import translator as translator_module
from flax_transformer.translation.required import cut_to_hold, shape_of_required
from flax_transformer.translation.translator import Translator

LINES = ["the cat sees a red house", "we eat", "", "the big cat", "bread and bread and bread"]
DECODING = DecodingConfig(beam_size=4, extra_length=6, max_source_length=32, batch_tokens=256)


@pytest.fixture(scope="module")
def tokenizer(small_config, tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    return train_tokenizer([*LINES, "The We ."], small_config.tokenizer, path, seed=0)


@pytest.fixture(scope="module", params=["Transformer", "recurrent"])
def model(request, small_config, random_params) -> tuple[Config, dict]:
    """Settings, and parameters large enough for words to depend on the sentence."""
    config = small_config
    if request.param == "recurrent":
        config = recurrent(config, "concat", num_encoder_layers=1, num_decoder_layers=1)
    return config, jax.tree.map(lambda leaf: 2 * leaf, random_params(config))


def search(model, tokenizer, lines, required=None, prefixes=None, **decoding):
    config, params = model
    config = dataclasses.replace(config, decoding=dataclasses.replace(DECODING, **decoding))
    mesh = build_mesh(MeshConfig(), jax.devices()[:2])
    params = jax.device_put(params, jax.NamedSharding(mesh, jax.P()))
    translator = Translator(config, tokenizer, mesh)
    return translator.translate(params, lines, required=required, prefixes=prefixes)


def test_samples_are_those_of_a_sentence_whatever_is_translated_with_it(model, tokenizer):
    settings = {"sampling": True, "temperature": 0.7}
    found = search(model, tokenizer, LINES, **settings)
    assert [len(samples) for samples in found] == [4, 4, 1, 4, 4]
    turned = search(model, tokenizer, [*LINES[::-1], "other"], **settings)[:5][::-1]
    for samples, again in zip(found, turned, strict=True):
        assert [each.text for each in samples] == [each.text for each in again]
        np.testing.assert_allclose(
            [each.score for each in samples], [each.score for each in again], rtol=1e-4
        )
    others = search(model, tokenizer, LINES, seed=1, **settings)
    assert all(found[i] != others[i] for i in (0, 1, 3, 4))


def test_equal_samples_stay_in_their_places(model, tokenizer):
    found = search(model, tokenizer, LINES[:2], sampling=True, top_k=1)
    greedy = search(model, tokenizer, LINES[:2], beam_size=1)
    for samples, (best,) in zip(found, greedy, strict=True):
        assert [each.text for each in samples] == [best.text] * 4


@pytest.mark.parametrize("settings", [{"sampling": True}, {"diversity_groups": 2}])
def test_only_one_beam_search_has_a_tree(model, tokenizer, settings):
    config, params = model
    decoding = dataclasses.replace(DECODING, **settings)
    translator = Translator(dataclasses.replace(config, decoding=decoding), tokenizer)
    with pytest.raises(UserError, match="only one beam search can be shown"):
        translator.record_search(params, "the cat")


def search_ids(model, forbidden=(), **decoding) -> list[list[int]]:
    """The tokens of all hypotheses of three sentences."""
    config, params = model
    config = dataclasses.replace(config, decoding=dataclasses.replace(DECODING, **decoding))
    network = build_model(config.model, config.tokenizer.vocabulary_size)
    ids = np.array([[5, 7, EOS_ID, PAD_ID], [300, 9, 5, EOS_ID], [4, EOS_ID, PAD_ID, PAD_ID]])
    run = jax.jit(partial(search_module.search, network, config, forbidden=forbidden))
    found = np.asarray(run(params, jnp.asarray(ids, jnp.int32)).ids)
    rows = [[token for token in row if token != PAD_ID] for row in found.reshape(12, -1).tolist()]
    assert all(row[-1] == EOS_ID for row in rows)
    return rows


@pytest.mark.parametrize("sampling", [False, True])
def test_rules_hold_for_every_model_searched_and_sampled(model, sampling):
    free = search_ids(model, sampling=sampling)
    forbidden = [row[:2] for row in free if len(row) > 2]
    assert forbidden
    rules = {"min_length": 6, "no_repeat_ngram": 1, "sampling": sampling}
    for row in search_ids(model, forbidden, **rules):
        assert 6 <= len(row) == len(set(row))
        assert not any([*pair] in forbidden for pair in itertools.pairwise(row))


def test_forbidden_texts_are_forbidden_in_the_pieces_of_the_vocabulary(tokenizer, monkeypatch):
    handed = []

    def find(model, config, params, ids, *_, forbidden):
        handed.extend(forbidden)
        return Hypotheses(ids[:, None], jnp.zeros((len(ids), 1)))

    monkeypatch.setattr(translator_module, "search", find)
    decoding = dataclasses.replace(DECODING, forbidden=("the  cat", "red"))
    Translator(Config(decoding=decoding), tokenizer).translate({}, ["we"])
    assert handed == tokenizer.encode(["the cat", "red"])


def test_groups_find_what_one_beam_does_not(model, tokenizer):
    beam, groups = (
        search(model, tokenizer, LINES, diversity_groups=g, diversity_strength=s)
        for g, s in ((1, 0.5), (4, 5.0))
    )
    for i in (0, 1, 3, 4):
        assert {each.text for each in groups[i]} - {each.text for each in beam[i]}
        scores = [each.score for each in groups[i]]
        assert scores == sorted(scores, reverse=True) and len(scores) > 1


def test_required_phrases_are_in_translations(model, tokenizer):
    required = [["red cat"], [], [], ["bread", "the"], ["we"]]
    found = search(model, tokenizer, LINES, required=required)
    free = search(model, tokenizer, LINES)
    for hypotheses, others, phrases in zip(found, free, required, strict=True):
        assert all(phrase in each.text for phrase in phrases for each in hypotheses)
        if not phrases:
            assert [each.text for each in hypotheses] == [each.text for each in others]
    (prefixed, *_) = search(
        model, tokenizer, LINES, required=required, prefixes=["we ", "", "", "", "w"]
    )
    assert all(each.text.startswith("we") and "red cat" in each.text for each in prefixed)


def test_phrases_make_a_line_one_piece(tokenizer):
    """Whatever its sentences; one that is required twice, or carried over anyway, is not told."""
    line, config = "The cat sees. We eat bread. \U0001f600", Config(decoding=DECODING)
    trained, required = TrainedLengths(100, 1), ["red  cat", "", "red  cat", "\U0001f600"]
    cut = cut_to_hold([line, line], None, [[], required], config, tokenizer, trained)
    assert len(cut[0]) == 3 and len(cut[1]) == 1
    assert cut[1][0].required == tokenizer.encode(["red cat"])
    assert shape_of_required(cut[1]) == (1, 4) and shape_of_required(cut[0]) is None


@pytest.mark.parametrize(
    ("line", "phrases", "settings", "message"),
    [
        ("", ["red"], {}, "the phrase 'red' is required of a line without words"),
        ("we eat", ["the big red house and we eat bread"], {}, "require less, or raise"),
        ("the cat " * 40, ["red"], {}, "must be translated as a whole: give a shorter one"),
        ("we", ["red"], {"sampling": True}, "only one beam search sees to"),
        ("we", ["red"], {"diversity_groups": 2}, "only one beam search sees to"),
    ],
)
def test_phrases_that_cannot_be_required_are_refused(line, phrases, settings, message, tokenizer):
    config = Config(decoding=dataclasses.replace(DECODING, **settings))
    with pytest.raises(UserError, match=message):
        cut_to_hold(["we", line], None, [[], phrases], config, tokenizer)


def plain_search(network, params, ids):
    """Beam search without any option, as a caller of `beam_search` would write it."""
    segments = (ids != PAD_ID).astype(jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids.shape)
    apply = partial(network.apply, {"params": params})
    most = ids.shape[1] + DECODING.extra_length
    memory = apply(ids, segments, positions, method="encode")
    cache = apply(memory, segments, most, DECODING.beam_size, method="start_cache")
    lengths = segments.sum(axis=1)
    step_weights = {STEP_WEIGHTS: apply(method="step_weights")}
    return beam_search(
        partial(network.apply, {"params": params} | step_weights, method="decode_step"), cache,
        jnp.where(lengths > 1, lengths + DECODING.extra_length, 0), segments != 0, max_steps=most,
        beam_size=DECODING.beam_size, bos_id=BOS_ID, eos_id=EOS_ID, pad_id=PAD_ID,
        scoring=Scoring(), grow=partial(apply, method="grow_cache"),
    )  # fmt: skip


OPTIONS = (
    {"sampling": True}, {"min_length": 2}, {"no_repeat_ngram": 3}, {"forbidden": [[5, 7]]},
    {"diversity_groups": 2}, {"required": np.full((3, 1, 4), 9, np.int32)},
)  # fmt: skip


def test_what_is_off_is_not_in_the_program(model):
    """The search without options is that of a caller who knows none; each option makes another."""
    config, params = model
    network = build_model(config.model, config.tokenizer.vocabulary_size)
    ids = np.array([[5, 7, EOS_ID, PAD_ID], [300, 9, 5, EOS_ID], [4, EOS_ID, PAD_ID, PAD_ID]])
    ids = jnp.asarray(ids, jnp.int32)

    def program(required=None, forbidden=(), **decoding) -> str:
        changed = dataclasses.replace(DECODING, **decoding)
        run = partial(
            search_module.search, network, dataclasses.replace(config, decoding=changed),
            required=required, forbidden=forbidden,
        )  # fmt: skip
        return without_addresses(jax.make_jaxpr(run)(params, ids))

    plain = program()
    assert plain == without_addresses(jax.make_jaxpr(partial(plain_search, network))(params, ids))
    others = [program(**option) for option in OPTIONS]
    assert len({plain, *others}) == 1 + len(OPTIONS)


def without_addresses(jaxpr) -> str:
    """Of functions, which differ from trace to trace."""
    return re.sub(r"0x[0-9a-f]+", "", str(jaxpr))
