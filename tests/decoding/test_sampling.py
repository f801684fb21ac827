"""Samples of languages drawn at random, against the exact probabilities of their sentences."""

import functools
from collections import Counter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.made_up_languages import (
    BOS,
    EOS,
    GNMT,
    PAD,
    PLAIN,
    exhaustive,
    next_state,
    score,
    search,
    start_cache,
    step,
    tables,
)

from flax_transformer.decoding import loop
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.prefix import Prefix
from flax_transformer.decoding.sampling import Sampler, number_sentences, sample

V = 6
MODEL = Sampler()


@functools.partial(jax.jit, static_argnames=("sampler", "seed", "count", "max_steps"))
def _draw(logits_of, cache, max_lengths, numbers, prefix, sampler, seed, count, max_steps):
    return sample(
        functools.partial(step, logits_of), cache, max_lengths, numbers, sampler=sampler, seed=seed,
        max_steps=max_steps, num_samples=count, bos_id=BOS, eos_id=EOS, pad_id=PAD, prefix=prefix,
    )  # fmt: skip


def draw(
    logits_of, max_lengths, count, sampler=MODEL, *, seed=0, sentences=None, max_steps=None,
    prefix=None,
) -> Hypotheses:  # fmt: skip
    """Samples in the languages of `sentences` (all of them, in order), which are their numbers."""
    sentences = range(len(max_lengths)) if sentences is None else sentences
    found = _draw(
        jnp.asarray(logits_of), start_cache(sentences, count), jnp.array(max_lengths, jnp.int32),
        jnp.array(sentences, jnp.uint32), prefix, sampler, seed, count,
        max_steps or max(max_lengths),
    )  # fmt: skip
    return jax.tree.map(np.asarray, found)


def cut(ids) -> tuple[int, ...]:
    return tuple(token for token in ids.tolist() if token != PAD)


def chances(table, max_length, sampler) -> dict[tuple[int, ...], float]:
    """The probability of every sentence, by the definition."""
    found = {}
    for _, ids in exhaustive(table, max_length, PLAIN, V):
        chance, state = 1.0, next_state(0, BOS)
        for place, token in enumerate(ids, 1):
            allowed = [EOS] if place == max_length else [EOS, *range(3, V)]
            chance *= step_chances(table, state, allowed, sampler).get(token, 0.0)
            state = next_state(state, token)
        found[ids] = chance
    return found


def step_chances(table, state, allowed, sampler) -> dict[int, float]:
    """One draw: the k most probable, then of these the fewest that have p."""
    weights = {t: np.exp(float(table[state, t]) / sampler.temperature) for t in allowed}
    kept = sorted(weights, key=lambda token: -weights[token])[: sampler.top_k or None]
    total, taken, nucleus = sum(weights[token] for token in kept), 0.0, []
    for token in kept:
        if taken < sampler.top_p * total:
            nucleus.append(token)
            taken += weights[token]
    return {token: weights[token] / taken for token in nucleus}


@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(), Sampler(temperature=0.5), Sampler(temperature=2.0, top_k=2),
        Sampler(top_p=0.7), Sampler(temperature=3.0, top_p=0.7),
        Sampler(temperature=1.5, top_k=3, top_p=0.8),
    ],
)  # fmt: skip
def test_frequencies_are_the_probabilities(sampler):
    """Chi-square over all sentences of which five or more are expected, and the rest together."""
    count, max_length = 4000, 3
    logits_of = tables(seed=7, v=V, sentences=1, sharpness=0.7)
    found = draw(logits_of, (max_length,), count, sampler, seed=3)
    drawn = Counter(cut(ids) for ids in found.ids[0])
    expected = {ids: count * p for ids, p in chances(logits_of[0], max_length, sampler).items()}
    assert sum(expected.values()) == pytest.approx(count)
    assert all(expected[ids] > 0 for ids in drawn), "a token that may not be drawn was"
    common = [ids for ids in expected if expected[ids] >= 5]
    pairs = [(drawn[ids], expected[ids]) for ids in common]
    rest = count - sum(e for _, e in pairs)
    if rest > 1:
        pairs.append((count - sum(d for d, _ in pairs), rest))
    statistic = sum((d - e) ** 2 / e for d, e in pairs)
    degrees = len(pairs) - 1
    assert degrees >= 2
    # The 99.9th percentile of chi-square, by Wilson and Hilferty.
    share = 2 / (9 * degrees)
    assert statistic < degrees * (1 - share + 3.09 * share**0.5) ** 3


def test_scores_are_log_probabilities_of_the_model():
    logits_of = tables(seed=2, v=V)
    logits_of[:, :, [PAD, BOS]] += 3  # most probable, and still never drawn
    found = draw(logits_of, (9, 1, 4), 20, Sampler(temperature=2.0, top_k=3))
    for i, j in np.ndindex(3, 20):
        ids = cut(found.ids[i, j])
        assert ids[-1] == EOS and not {EOS, BOS} & set(ids[:-1]) and len(ids) <= (9, 1, 4)[i]
        expected = score(logits_of[i], ids, PLAIN)
        np.testing.assert_allclose(found.scores[i, j], expected, 1e-5, 1e-5)


@pytest.mark.parametrize(
    "sampler",
    [Sampler(temperature=1e-4), Sampler(top_k=1), Sampler(top_p=1e-6), Sampler(1e-9, 0, 0.9)],
)
def test_without_chance_left_every_sample_is_that_of_greedy_search(sampler):
    logits_of, max_lengths = tables(seed=4, v=V), (12, 5, 9)
    greedy = search(logits_of, max_lengths, 1, GNMT)
    found = draw(logits_of, max_lengths, 3, sampler)
    for j in range(3):
        np.testing.assert_array_equal(found.ids[:, j], greedy.ids[:, 0])


def test_a_seed_decides_and_neither_neighbours_nor_the_number_of_samples_do():
    logits_of, max_lengths = tables(seed=5, v=V), (20, 20, 8)
    logits_of[1, :, EOS] -= 3  # runs long after the others
    together = draw(logits_of, max_lengths, 4)
    chex.assert_trees_all_equal(together, draw(logits_of, max_lengths, 4))
    assert (draw(logits_of, max_lengths, 4, seed=1).ids != together.ids).any(axis=(1, 2)).all()
    for i, max_length in enumerate(max_lengths):
        alone = draw(logits_of, (max_length,), 2, sentences=[i], max_steps=20)
        np.testing.assert_array_equal(together.ids[i, :2], alone.ids[0])
        np.testing.assert_allclose(together.scores[i, :2], alone.scores[0], rtol=1e-6)


def test_samples_of_a_sentence_and_of_its_twin_differ():
    logits_of = tables(seed=5, v=V, sentences=1, sharpness=0.5)
    logits_of = np.concatenate([logits_of, logits_of])
    found = draw(logits_of, (9, 9), 16)
    assert len({cut(ids) for ids in found.ids.reshape(32, 9)}) > 12
    assert [*map(cut, found.ids[0])] != [*map(cut, found.ids[1])]


def test_numbers_depend_on_the_tokens_and_their_order_alone():
    ids = jnp.array([[5, 4, EOS, PAD], [4, 5, EOS, PAD], [5, 4, EOS, PAD], [5, 4, 4, EOS]])
    numbers = np.asarray(jax.jit(number_sentences)(ids))
    assert numbers[0] == numbers[2] and len(set(numbers.tolist())) == 3
    wider = jnp.pad(ids, ((0, 0), (0, 12)))
    np.testing.assert_array_equal(jax.jit(number_sentences)(wider), numbers)


def test_the_last_samples_go_on_in_a_smaller_batch(monkeypatch):
    """With their own numbers."""
    logits_of = tables(5, v=V, sentences=64)
    logits_of[:, :, EOS] += 2
    logits_of[[9, 33, 60], :, EOS] = -30.0
    monkeypatch.setattr(loop, "_FEWEST", 65)
    whole = draw(logits_of, (20,) * 64, 2, seed=11)
    monkeypatch.undo()
    _draw.clear_cache()
    shrunk = draw(logits_of, (20,) * 64, 2, seed=11)
    np.testing.assert_array_equal(whole.ids, shrunk.ids)
    assert (whole.ids[[9, 33, 60]] != PAD).all()


def test_samples_begin_with_a_prefix_and_spell_its_word():
    logits_of = tables(seed=8, v=V, sentences=2, sharpness=0.5)
    tokens = jnp.array([[4, 3], [PAD, PAD]], jnp.int32)
    nexts = np.full((2, 3, V), -1, np.int8)
    nexts[:, 0] = 0
    nexts[1, 1, 3], nexts[1, 1, 5], nexts[1, 2, 4] = 2, 0, 0  # "3 4" or "5"
    found = draw(logits_of, (5, 5), 40, prefix=Prefix(tokens, jnp.asarray(nexts)))
    assert {cut(ids)[:2] for ids in found.ids[0]} == {(4, 3)}
    assert len({cut(ids) for ids in found.ids[0]}) > 5
    spelled = {cut(ids)[:2] if ids[0] == 3 else cut(ids)[:1] for ids in found.ids[1]}
    assert spelled == {(3, 4), (5,)}


def test_padding_sentences_have_no_samples():
    found = draw(tables(seed=1, v=V, sentences=2), (0, 4), 3)
    assert (found.scores[0] == -np.inf).all() and (found.ids[0] == PAD).all()
    assert np.isfinite(found.scores[1]).all()
