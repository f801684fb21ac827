"""What a diagnosis measures, each figure against numpy or a case whose answer is known."""

import functools

import jax
import numpy as np
import optax
import pytest
from support.samples import FIRST_WORD, ragged, recurrent

from flax_transformer.config import MeshConfig
from flax_transformer.data.packing import PackedRows, lay_out
from flax_transformer.data.token_cache import TokenizedPairs
from flax_transformer.diagnosis.attention_statistics import (
    CROSS,
    attention_statistics,
    measure_attention,
)
from flax_transformer.diagnosis.baselines import baselines, smoothing_floor
from flax_transformer.diagnosis.figures import examine, shuffle_sources
from flax_transformer.diagnosis.norms import Norms, by_module, together
from flax_transformer.diagnosis.pair_figures import pair_figures
from flax_transformer.diagnosis.repetition import (
    identical_share,
    output_figures,
    repeated_share,
)
from flax_transformer.models import build_model
from flax_transformer.parallel.rows import place_rows
from flax_transformer.parallel.sharding import build_mesh, on_mesh
from flax_transformer.text.tokenizer import EOS_ID
from flax_transformer.training.state import abstract_state, count_parameters
from flax_transformer.training.step import train_step
from flax_transformer.translation.hypotheses import Hypothesis


@pytest.fixture(scope="module")
def examined(small_config, initial_state, packed_batch):
    """A state of which the decoder's second layer is damaged, examined on 8 devices: the norms by
    module, the attention, and what a training step makes of the same."""
    params = jax.tree.map(np.array, initial_state.params)
    params["decoder"]["cross_attention"]["query"][1] = 0  # looks everywhere alike
    params["decoder"]["feed_forward"]["w2"][1] = 0  # lets no gradient through
    mesh = build_mesh(MeshConfig(data=4, fsdp=2))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(small_config, mesh))
    state = jax.device_put(initial_state._replace(params=params), shardings)
    batch = place_rows(mesh, 8, packed_batch)
    arguments = (state, batch, jax.random.key(1))
    found = jax.jit(functools.partial(on_mesh(mesh, examine), small_config))(*arguments)
    stepped = jax.jit(functools.partial(on_mesh(mesh, train_step), small_config))(*arguments)
    norms, attention = jax.device_get(found)
    return params, by_module(norms, params), attention, jax.device_get(stepped)


def test_norms_are_those_of_the_step_that_training_would_take(examined):
    params, modules, _, (after, metrics) = examined
    whole = together(modules)
    assert whole.parameters == count_parameters(params)
    np.testing.assert_allclose(whole.gradient, metrics["gradient_norm"], rtol=1e-4)
    np.testing.assert_allclose(whole.parameter, optax.tree.norm(params), rtol=1e-5)
    update = optax.tree.norm(jax.tree.map(np.subtract, after.params, params))
    np.testing.assert_allclose(whole.update, update, rtol=1e-2)
    (module,) = [m for m in modules if m.name == "decoder layer 2: cross_attention"]
    parts = [x[1].ravel() for x in params["decoder"]["cross_attention"].values()]
    np.testing.assert_allclose(module.parameter, np.linalg.norm(np.concatenate(parts)), rtol=1e-5)
    assert module.parameters == sum(map(len, parts))


def test_parameters_without_gradient_are_named(examined):
    _, modules, _, _ = examined
    # Where every score is 0 whatever the key, a key makes no difference.
    assert [name for module in modules for name in module.without_gradient] == [
        "decoder layer 2: cross_attention.key",
        "decoder layer 2: feed_forward.b1",
        "decoder layer 2: feed_forward.w1",
    ]


def test_layers_are_in_order_and_what_is_not_finite_is_named():
    params = {"encoder": {"attention": {"key": np.ones((11, 2)), "query": np.ones((11, 2))}}}
    values = np.arange(11.0)
    bad = np.where(values == 9, np.nan, values)
    tree, with_nan = ({"encoder": {"attention": {"key": values, "query": x}}} for x in (1, bad))
    tree["encoder"]["attention"]["query"] = values
    modules = by_module(Norms(with_nan, tree, tree), params)
    assert [m.name for m in modules] == [f"encoder layer {i}: attention" for i in range(1, 12)]
    assert [m.not_finite for m in modules if m.not_finite] == [
        ["encoder layer 10: attention.query"]
    ]
    assert modules[0].without_gradient == [
        "encoder layer 1: attention.key",
        "encoder layer 1: attention.query",
    ]
    np.testing.assert_allclose(modules[2].gradient, np.sqrt(8))


def test_attention_without_queries_is_uniform_and_only_there(examined):
    _, _, attention, _ = examined
    assert {found.entropy.shape for found in attention.values()} == {(2, 8)}
    np.testing.assert_allclose(attention[CROSS].entropy[1], 1, rtol=1e-5)
    others = [x.entropy for name, x in attention.items() if name != CROSS]
    assert (np.concatenate([*others, attention[CROSS].entropy[:1]]) < 0.999).all()


def test_attention_statistics_by_hand():
    mask = np.array([[[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 0]]], bool)  # the third sees one only
    uniform = mask / mask.sum(-1, keepdims=True)
    first = np.eye(4)[[0, 1, 0]][None]
    weights = np.stack([uniform, first], axis=1).astype(np.float32)
    found = attention_statistics(weights, mask)
    np.testing.assert_allclose(found.entropy, [1, 0], atol=1e-6)
    np.testing.assert_allclose(found.first, [(1 / 4 + 1 / 2) / 2, 1], rtol=1e-6)
    np.testing.assert_allclose(found.last, [(1 / 4 + 1 / 2) / 2, 0], atol=1e-6)


@pytest.mark.parametrize("variant", [None, "general", "concat"])
def test_attention_is_what_the_decoder_looks_at(variant, small_config, random_params):
    """Against cached decoding of a sentence alone in its row, which tells the heads' mean."""
    config = recurrent(small_config, variant) if variant else small_config
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    params = random_params(config)
    source, target = [[5, 6, 7, EOS_ID]], [[8, 9, EOS_ID]]
    batch = lay_out(TokenizedPairs(ragged(source), ragged(target)), [np.arange(1)], 4, 4)
    found = jax.jit(lambda: measure_attention(model, params, batch)[CROSS])()
    apply = functools.partial(model.apply, {"params": params})

    def step_by_step():
        segments = batch.source_segments
        memory = apply(batch.source_ids, segments, batch.source_positions, method="encode")
        cache = apply(memory, segments, 3, 1, method="start_cache")
        looked = []
        for t in range(3):
            ids, position = batch.target_inputs[:, t : t + 1], np.int32(t)
            _, cache, attention = apply(ids, position, cache, method="decode_step_with_attention")
            looked.append(attention[0, 0])
        return looked

    weights = np.stack(jax.jit(step_by_step)())
    np.testing.assert_allclose(found.first[-1].mean(), weights[:, 0].mean(), rtol=1e-4)
    np.testing.assert_allclose(found.last[-1].mean(), weights[:, 3].mean(), rtol=1e-4)
    if variant:
        entropy = -(weights * np.log(weights)).sum(-1).mean() / np.log(4)
        np.testing.assert_allclose(found.entropy, [[entropy]], rtol=1e-4)


def test_model_without_attention_has_none(small_config, packed_batch, random_params):
    config = recurrent(small_config, "no attention")
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    assert measure_attention(model, random_params(config), packed_batch) == {}


@pytest.mark.parametrize(
    ("row", "repeated"),
    [("a a a a", 3), ("a b a b", 2), ("a b c a b c d", 3), ("a b a c", 0), ("a b c d a b c d", 0)],
)
def test_repeated_tokens_are_counted_once(row, repeated):
    ids = [ord(letter) for letter in row.split()]
    assert repeated_share([ids, [], [1, 2, 3]]) == repeated / (len(ids) + 3)


def test_output_figures_by_hand():
    # The same source twice may well have the same translation twice; the empty ones are apart.
    sources = ["one", "two", "three", "three", "four", "five"]
    texts = ["un", "un", "trois", "trois", "", ""]
    assert identical_share(sources, texts) == 2 / 6
    outputs = [
        Hypothesis(text, 0.0, tokens)
        for text, tokens in zip(texts, (2, 5, 2, 2, 1, 1), strict=True)
    ]
    found = output_figures(sources, outputs, [5] * 6, [[1, 1], [2]], [[1, 2, 3]])
    assert (found.identical, found.empty, found.too_long) == (2 / 6, 2 / 6, 1 / 6)
    assert (found.repeated, found.repeated_in_references) == (1 / 3, 0)


def test_baselines_by_hand():
    train, validation = np.array([2, 3, 1, 2, 3, 1], np.uint16), np.array([1, 2, 3, 1], np.uint16)
    found = baselines(train, validation, 4, 0.1)
    p = np.array([0 + 1, 2 + 1, 2 + 1, 2 + 1]) / 10  # counts and one more
    np.testing.assert_allclose(found.unigram, -np.log(p[[1, 2, 3, 1]]).mean())
    # After 1 comes 2, after 2 comes 3, after 3 comes 1: always, in what was counted.
    share = np.array([1 / 1, 2 / 2, 2 / 2])
    np.testing.assert_allclose(found.bigram, -np.log(0.9 * share + 0.1 * p[[2, 3, 1]]).mean())
    np.testing.assert_allclose(found.uniform, np.log(4))
    label = np.array([0.925, 0.025, 0.025, 0.025])
    np.testing.assert_allclose(found.smoothing_floor, -(label * np.log(label)).sum())
    assert smoothing_floor(0.0, 4) == 0


def test_bigram_of_what_was_never_seen_is_finite():
    found = baselines(np.array([1, 2, 1]), np.array([3, 0, 3]), 4, 0.0)
    np.testing.assert_allclose(found.bigram, -np.log(0.1 * np.array([1 / 7, 1 / 7])).mean())


def test_pair_figures_by_hand(small_config):
    word = 300
    source = [[word, EOS_ID], [word, word, EOS_ID], [FIRST_WORD, EOS_ID]]
    target = [[word, EOS_ID], [word, EOS_ID], [259, 260, EOS_ID]]
    pairs = TokenizedPairs(ragged(source), ragged(target))
    found = pair_figures(PackedRows(pairs, np.arange(3), small_config.batch, 0), range(4, 260))
    assert (found.pairs, found.copies, found.length_ratio) == (3, 1 / 3, 1.0)
    assert (found.source_bytes, found.target_bytes) == (1 / 7, 1 / 7)
    assert (found.source_fill, found.target_fill) == (7 / 16, 7 / 16)


def test_shuffled_sources_keep_everything_but_the_order(packed_batch):
    (shuffled,) = shuffle_sources([packed_batch])
    real = packed_batch.source_segments > 0
    assert (shuffled.source_ids[real] != packed_batch.source_ids[real]).mean() > 0.5
    assert not shuffled.source_ids[~real].any()
    assert sorted(shuffled.source_ids[real]) == sorted(packed_batch.source_ids[real])
    unchanged = shuffled._replace(source_ids=packed_batch.source_ids)
    assert all(a is b for a, b in zip(unchanged, packed_batch, strict=True))
