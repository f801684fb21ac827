"""Hypotheses that must begin with given tokens, against exhaustive search among those that do."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.made_up_languages import (
    BOS,
    COVERED,
    EOS,
    GNMT,
    LONG,
    MEAN,
    PAD,
    SOURCE,
    as_prefix,
    assert_hypotheses,
    exhaustive,
    next_state,
    patient_search,
    score,
    search,
    start_cache,
    step_with_attention,
    tables,
)

from flax_transformer.decoding import loop
from flax_transformer.decoding.beam_search import beam_search


@pytest.mark.parametrize("scoring", [GNMT, LONG, COVERED])
def test_wide_beam_equals_exhaustive_search_among_those_that_begin_so(scoring):
    """Rows with prefixes of different lengths, with none, and with no room for more than one."""
    v, max_lengths, prefixes = 5, (4, 4, 4, 3, 2), ((3,), (), (4, 3, 3), (4, 4), (3,))
    logits_of = tables(seed=2, v=v, sentences=5)
    logits_of[:, :, EOS] += 1  # which may not end a prefix
    result = search(logits_of, max_lengths, 15, scoring, prefixes=prefixes)
    for i, (prefix, longest) in enumerate(zip(prefixes, max_lengths, strict=True)):
        all_there_are = exhaustive(logits_of[i], longest, scoring, v)
        expected = [each for each in all_there_are if each[1][: len(prefix)] == prefix]
        assert 0 < len(expected) <= 15
        assert_hypotheses(result, i, expected)


def spells(ids, word) -> bool:
    place = 1
    while place and ids:
        place, ids = word[place - 1].get(ids[0], -1), ids[1:]
        if place < 0:
            return False
    return place == 0


@pytest.mark.parametrize("scoring", [GNMT, COVERED])
def test_a_word_may_be_spelled_by_any_tokens(scoring):
    """After tokens that are forced, or from the start; no sentence ends inside it."""
    v, max_lengths, prefixes = 5, (4, 4, 4), ((4,), (), ())
    either = [{3: 2, 4: 0}, {3: 0, 4: 3}, {3: 0}]
    long = [{3: 2}, {4: 3, 3: 0}, {4: 0}]
    words = [either, long, []]
    logits_of = tables(seed=8, v=v)
    logits_of[:, :, EOS] += 1
    result = search(logits_of, max_lengths, 15, scoring, prefixes=prefixes, words=words)
    found = []
    for i, (prefix, word) in enumerate(zip(prefixes, words, strict=True)):
        expected = [
            each
            for each in exhaustive(logits_of[i], max_lengths[i], scoring, v)
            if each[1][: len(prefix)] == prefix
            and (not word or spells(each[1][len(prefix) :], word))
        ]
        assert_hypotheses(result, i, expected)
        found.append(len(expected))
    assert found[0] > 3 and found[1] > 2 and found[2] == 15


@pytest.mark.parametrize("scoring", [GNMT, LONG])
def test_greedy_search_spells_a_word_by_the_most_probable_tokens(scoring):
    v, sentences = 7, 8
    word = [{3: 2, 4: 0, 5: 3}, {3: 0, 4: 3}, {3: 0, 6: 0}]
    logits_of = tables(seed=9, v=v, sentences=sentences)
    words = [word] * sentences
    result = search(
        logits_of, (9,) * sentences, 1, scoring, prefixes=((3, 3),) * sentences, words=words
    )
    for i in range(sentences):
        ids, state, place = [3, 3], 0, 1
        for token in (BOS, 3, 3):
            state = next_state(state, token)
        while ids[-1] != EOS:
            allowed = word[place - 1] if place else dict.fromkeys(range(v), 0)
            chosen = [t for t in allowed if t not in (PAD, BOS)] if len(ids) < 8 else [EOS]
            ids.append(max(chosen, key=lambda token: logits_of[i, state, token]))
            state, place = next_state(state, ids[-1]), allowed[ids[-1]]
        assert_hypotheses(result, i, [(score(logits_of[i], ids, scoring), tuple(ids))])


@pytest.mark.parametrize(("beam_size", "scoring"), [(1, GNMT), (2, MEAN), (3, COVERED)])
def test_a_narrow_beam_goes_on_from_the_prefix(beam_size, scoring):
    v, max_lengths = 7, (12, 5, 9, 12)
    prefixes = ((3, 6, 6, 5, 4), (), (5,), (4,) * 11)
    logits_of = tables(seed=beam_size, v=v, sentences=4)
    result = search(logits_of, max_lengths, beam_size, scoring, prefixes=prefixes)
    for i, (prefix, longest) in enumerate(zip(prefixes, max_lengths, strict=True)):
        expected = patient_search(logits_of[i], longest, beam_size, scoring, v, prefix)
        assert_hypotheses(result, i, expected)
    # Not what it would have found by itself.
    free = search(logits_of, max_lengths, beam_size, scoring)
    assert (free.ids[[0, 2], 0] != result.ids[[0, 2], 0]).any(axis=1).all()


def test_nothing_to_force_changes_nothing():
    logits_of, max_lengths = tables(seed=4, v=7), (9, 12, 3)
    nothing = search(logits_of, max_lengths, 3, GNMT, prefixes=((), (), ()))
    chex.assert_trees_all_equal(nothing, search(logits_of, max_lengths, 3, GNMT))


def test_greedy_search_repeats_what_it_found_from_each_of_its_beginnings():
    v, max_lengths = 7, (12,) * 6
    logits_of = tables(seed=6, v=v, sentences=6)
    free = search(logits_of, max_lengths, 1, GNMT)
    found = [ids[: ids.index(EOS)] for ids in free.ids[:, 0].tolist()]
    assert max(map(len, found)) > 3
    for count in (1, 3, 11):
        prefixes = [ids[:count] for ids in found]
        again = search(logits_of, max_lengths, 1, GNMT, prefixes=prefixes)
        chex.assert_trees_all_equal(again, free)


def test_a_prefix_goes_with_its_sentence_into_a_smaller_batch(monkeypatch):
    """The others are done while these are still forced."""
    monkeypatch.setattr(loop, "_FEWEST", 1)
    v, sentences, max_steps = 6, 16, 20
    logits_of = tables(seed=5, v=v, sentences=sentences)
    logits_of[:, :, EOS] += 2
    prefixes = [[] for _ in range(sentences)]
    prefixes[3], prefixes[12] = [3, 4, 5] * 5, [5, 4] * 8
    batches = []
    prefix = as_prefix(prefixes, None, v)

    @jax.jit
    def run(cache):
        def observed_step(ids, position, cache):
            jax.debug.callback(lambda _: batches.append(len(ids)), position)
            return step_with_attention(jnp.asarray(logits_of), ids, position, cache)[:2]

        return beam_search(
            observed_step, cache, jnp.full(sentences, max_steps), np.tile(SOURCE, (sentences, 1)),
            max_steps=max_steps, beam_size=2, scoring=GNMT, bos_id=BOS, eos_id=EOS, pad_id=PAD,
            prefix=prefix,
        )  # fmt: skip

    found = jax.tree.map(np.asarray, run(start_cache(range(sentences), 2)))
    jax.effects_barrier()
    assert set(batches) == {16, 2} and batches.index(2) < 10
    for i, prefix in enumerate(prefixes):
        expected = patient_search(logits_of[i], max_steps, 2, GNMT, v, prefix)
        assert_hypotheses(found, i, expected)
