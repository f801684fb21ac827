"""Diverse beam search against its definition, in languages drawn at random."""

import functools

import numpy as np
import pytest
from support.made_up_languages import (
    BOS,
    COVERED,
    EOS,
    GNMT,
    LONG,
    PAD,
    assert_hypotheses,
    log_probs_of,
    next_state,
    score,
    search,
    tables,
    words,
)

from flax_transformer.decoding import loop
from flax_transformer.decoding.diverse import lengthen_groups


@functools.cache
def avoid(groups, strength):
    return functools.partial(lengthen_groups, groups=groups, strength=strength)


def search_groups(logits_of, max_lengths, w, groups, strength, scoring, **options):
    lengthen = avoid(groups, strength)
    return search(logits_of, max_lengths, w, scoring, lengthen=lengthen, groups=groups, **options)


def by_definition(table, max_length, size, groups, strength, scoring, v, prefix=()):
    """One sentence: at each position the groups choose in turn, until each is done."""
    live = [[(0.0, (), next_state(0, BOS))] for _ in range(groups)]
    finished = [[] for _ in range(groups)]
    longest = (5 + max_length) / 6 if scoring.length_normalization == "gnmt" else max_length
    for length in range(1, max_length + 1):
        taken = np.zeros(v)
        for g in range(groups):
            forced, candidates = prefix[length - 1 : length], []
            for total, ids, state in live[g]:
                for token in forced or ([EOS] if length == max_length else [EOS, *words(v)]):
                    own = total + log_probs_of(table, state)[token]
                    key = own - (0 if forced else strength * taken[token])
                    candidates.append((key, own, (*ids, token), next_state(state, token)))
            candidates = sorted(candidates, reverse=True)[: 2 * size]
            ended = [ids for _, _, ids, _ in candidates[:size] if ids[-1] == EOS]
            finished[g] += [(score(table, ids, scoring), ids) for ids in ended]
            finished[g] = sorted(finished[g], reverse=True)[:size]
            live[g] = [each[1:] for each in candidates if each[2][-1] != EOS][:size]
            best = max((own for own, *_ in live[g]), default=-np.inf)
            full = len(finished[g]) == size
            if full and finished[g][-1][0] >= best / longest**scoring.length_penalty:
                live[g] = []
            if size == 1 and ended:
                live[g] = []
            for _, ids, _ in live[g]:
                taken[ids[-1]] += 1
    return sorted((each for group in finished for each in group), reverse=True)


@pytest.mark.parametrize(
    ("size", "groups", "strength", "scoring"),
    [(1, 3, 1.0, GNMT), (2, 2, 0.5, GNMT), (2, 3, 2.0, LONG), (3, 2, 0.7, COVERED)],
)
def test_groups_choose_in_turn_and_avoid_what_is_taken(size, groups, strength, scoring):
    v, max_lengths = 7, (9, 4, 6, 1)
    logits_of = tables(seed=size, v=v, sentences=4, sharpness=0.7)
    logits_of[:2, :, EOS] -= 1
    w = size * groups
    result = search_groups(logits_of, max_lengths, w, groups, strength, scoring)
    apart = search_groups(logits_of, max_lengths, w, groups, 0.0, scoring)
    assert (result.ids != apart.ids).any()
    for i, longest in enumerate(max_lengths):
        expected = by_definition(logits_of[i], longest, size, groups, strength, scoring, v)
        assert_hypotheses(result, i, expected)


def test_one_group_is_beam_search():
    logits_of, max_lengths = tables(seed=4, v=7), (12, 5, 9)
    one = search_groups(logits_of, max_lengths, 3, 1, 5.0, GNMT)
    plain = search(logits_of, max_lengths, 3, GNMT)
    np.testing.assert_array_equal(one.ids, plain.ids)
    np.testing.assert_allclose(one.scores, plain.scores, rtol=1e-6)


def test_groups_without_strength_are_narrower_beam_searches():
    logits_of, max_lengths = tables(seed=4, v=7), (12, 5, 9)
    result = search_groups(logits_of, max_lengths, 6, 3, 0.0, GNMT)
    narrow = search(logits_of, max_lengths, 2, GNMT)
    np.testing.assert_array_equal(result.ids, np.repeat(narrow.ids, 3, axis=1))


def test_what_is_forced_is_not_avoided():
    v, max_lengths, prefixes = 7, (9, 6, 4), ((4, 4, 3), (), (5,))
    logits_of = tables(seed=3, v=v)
    result = search_groups(logits_of, max_lengths, 4, 2, 0.8, GNMT, prefixes=prefixes)
    for i, longest in enumerate(max_lengths):
        expected = by_definition(logits_of[i], longest, 2, 2, 0.8, GNMT, v, prefixes[i])
        assert_hypotheses(result, i, expected)


def test_groups_go_together_into_a_smaller_batch(monkeypatch):
    monkeypatch.setattr(loop, "_FEWEST", 1)
    v, sentences = 6, 16
    logits_of = tables(seed=5, v=v, sentences=sentences)
    logits_of[:, :, EOS] += 2
    logits_of[[3, 12], :, EOS] -= 30.0
    result = search_groups(logits_of, (20,) * sentences, 4, 2, 0.6, GNMT)
    for i in range(sentences):
        expected = by_definition(logits_of[i], 20, 2, 2, 0.6, GNMT, v)
        assert_hypotheses(result, i, expected)
    assert (result.ids[[3, 12], :, -1] != PAD).all()
