"""Hypotheses that must hold phrases, against exhaustive search among those that do."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.made_up_languages import (
    COVERED,
    EOS,
    GNMT,
    LONG,
    PAD,
    PLAIN,
    assert_hypotheses,
    exhaustive,
    score,
    tables,
)
from support.made_up_languages import search as search_language

from flax_transformer.decoding import loop
from flax_transformer.decoding.required import lengthen_required, measure
from flax_transformer.decoding.rules import forbid, minimum_length


def as_array(phrases, c=2, p=4) -> jnp.ndarray:
    """(b,c,p) of a list of phrases for each sentence."""
    required = np.full((len(phrases), c, p), PAD, np.int32)
    for i, of_sentence in enumerate(phrases):
        for j, phrase in enumerate(of_sentence):
            required[i, j, : len(phrase)] = phrase
    return jnp.asarray(required)


def search(logits_of, max_lengths, w, scoring, phrases, c=2, **options):
    return search_language(
        logits_of, max_lengths, w, scoring, lengthen=lengthen_required,
        required=as_array(phrases, c), **options,
    )  # fmt: skip


def holds(ids, phrase) -> bool:
    return any(tuple(ids[i : i + len(phrase)]) == phrase for i in range(len(ids)))


def cut(ids) -> tuple[int, ...]:
    return tuple(token for token in ids.tolist() if token != PAD)


PHRASES = (((3, 4),), ((4, 3), (3, 3, 4)), (), ((4,), (4, 4)), ((3, 3, 3, 3),), ((4, 3, 4),))
LENGTHS = (6, 6, 4, 5, 5, 3)


@pytest.mark.parametrize("scoring", [GNMT, LONG, COVERED])
def test_wide_beam_equals_exhaustive_search_among_those_that_hold_all(scoring):
    """Phrases that overlap, that hold each other, that fill all there is, none, and no room."""
    logits_of = tables(seed=3, v=5, sentences=6)
    result = search(logits_of, LENGTHS, 32, scoring, PHRASES)
    for i, (phrases, longest) in enumerate(zip(PHRASES, LENGTHS, strict=True)):
        expected = [
            each
            for each in exhaustive(logits_of[i], longest, scoring, 5)
            if all(holds(each[1], phrase) for phrase in phrases)
        ]
        assert bool(expected) == (i < 5)
        assert_hypotheses(result, i, expected)


@pytest.mark.parametrize(("w", "scoring"), [(1, GNMT), (2, PLAIN), (5, GNMT), (5, COVERED)])
def test_narrow_beams_hold_all_phrases_too(w, scoring):
    """Also those that begin alike, and however improbable they are."""
    phrases = (
        ((3, 4, 5), (3, 4, 6)),
        ((7, 7, 7, 7), (8,)),
        ((3, 4, 5, 6), (4, 5, 8)),
        ((5,), (6,)),
    )
    max_lengths, v = (12, 6, 9, 12), 9
    logits_of = tables(seed=w, v=v, sentences=4)
    logits_of[:, :, [5, 8]] -= 8
    result = search(logits_of, max_lengths, w, scoring, phrases)
    for i, j in np.ndindex(4, w):
        ids = cut(result.ids[i, j])
        if j == 0 or ids:
            assert all(holds(ids, phrase) for phrase in phrases[i]) and ids[-1] == EOS
            expected = score(logits_of[i], ids, scoring)
            np.testing.assert_allclose(result.scores[i, j], expected, 1e-5, 1e-5)


@pytest.mark.parametrize(("w", "scoring"), [(1, GNMT), (3, GNMT), (4, COVERED), (2, LONG)])
def test_without_phrases_it_is_beam_search(w, scoring):
    """Also beside sentences that have some."""
    max_lengths = (12, 5, 9, 1)
    logits_of = tables(seed=w, v=7, sentences=4)
    found = search(logits_of, max_lengths, w, scoring, ((), (), (), ()))
    plain = search_language(logits_of, max_lengths, w, scoring)
    np.testing.assert_array_equal(found.ids, plain.ids)
    np.testing.assert_allclose(found.scores, plain.scores, rtol=1e-5)
    mixed = search(logits_of, max_lengths, w, scoring, ((), ((3, 4),), (), ()))
    np.testing.assert_array_equal(mixed.ids[[0, 2, 3]], plain.ids[[0, 2, 3]])


def test_a_wider_beam_finds_better():
    phrases = (((5, 6), (8,)),) * 12
    logits_of = tables(seed=1, v=9, sentences=12)
    best = [search(logits_of, (10,) * 12, w, GNMT, phrases).scores[:, 0] for w in (1, 4, 16)]
    assert best[0].mean() < best[1].mean() < best[2].mean()


def test_what_is_required_breaks_rules_and_comes_after_a_prefix():
    phrases, prefixes = (((3, 4),), ((4, 4),), ((3,),)), ((4, 3), (3,), ())
    rules = (
        functools.partial(forbid, phrases=((3, 4), (4, 4, 4)), pad_id=PAD),
        functools.partial(minimum_length, least=5, eos_id=EOS),
    )
    logits_of = tables(seed=2, v=5)
    result = search(logits_of, (6, 6, 6), 32, GNMT, phrases, prefixes=prefixes, rules=rules)
    for i in range(3):
        found = {cut(ids) for ids in result.ids[i]} - {()}
        assert found and all(len(ids) >= 5 for ids in found)
        assert all(ids[: len(prefixes[i])] == prefixes[i] for ids in found)
        assert all(holds(ids, phrases[i][0]) for ids in found)
    assert not any(holds(cut(ids), (3, 4)) for ids in result.ids[2])


def test_phrases_go_with_their_sentence_into_a_smaller_batch(monkeypatch):
    monkeypatch.setattr(loop, "_FEWEST", 1)
    sentences = 16
    phrases = [()] * sentences
    phrases[3], phrases[12] = ((3, 5, 3), (4,)), ((5, 5),)
    logits_of = tables(seed=5, v=6, sentences=sentences)
    logits_of[:, :, EOS] += 2
    logits_of[[3, 12], :, EOS] -= 30
    result = search(logits_of, (20,) * sentences, 3, GNMT, phrases)
    for i in range(sentences):
        assert all(holds(cut(result.ids[i, 0]), phrase) for phrase in phrases[i])


def test_progress_is_what_is_held_and_what_is_begun():
    phrases = [(3, 4, 3, 5), (4, 3, 3)]
    required, run = as_array([phrases]), jax.jit(measure, static_argnames="pad_id")
    for length in range(6):
        rows = [*itertools.product((3, 4, 5), repeat=length)]
        ids = np.array([[*row, *[PAD] * (6 - length)] for row in rows], np.int32)[None]
        found = run(jnp.asarray(ids), length, required, pad_id=PAD)
        for n, (row, j) in enumerate(itertools.product(rows, (0, 1))):
            phrase = phrases[j]
            met = holds(row, phrase)
            begun = max(k for k in range(len(phrase)) if row[length - k :] == phrase[:k] or not k)
            assert found.met[0, n // 2, j] == met
            assert found.begun[0, n // 2, j] == (0 if met else begun)
