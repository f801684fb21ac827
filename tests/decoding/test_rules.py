"""What rules take away, against exhaustive search among the hypotheses that they leave."""

import functools
import itertools

import jax.numpy as jnp
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
    exhaustive,
    search,
    start_cache,
    step,
    tables,
)

from flax_transformer.decoding.rules import forbid, minimum_length, no_repeated_ngram
from flax_transformer.decoding.sampling import Sampler, sample

PHRASES = ((3, 4), (4, 4, 3), (4, 3, 4, 3))
NO_PHRASE = functools.partial(forbid, phrases=PHRASES, pad_id=PAD)


def at_least(least):
    return functools.partial(minimum_length, least=least, eos_id=EOS)


def no_repeated(n):
    return functools.partial(no_repeated_ngram, n=n)


def holds(ids, phrase) -> bool:
    return any(ids[i : i + len(phrase)] == phrase for i in range(len(ids)))


def repeats(ids, n) -> bool:
    ngrams = [ids[i : i + n] for i in range(len(ids) - n + 1)]
    return len(set(ngrams)) < len(ngrams)


RULES = {
    "length": (at_least(3), lambda ids, longest: len(ids) >= min(3, longest)),
    "unigrams": (no_repeated(1), lambda ids, _: not repeats(ids, 1)),
    "bigrams": (no_repeated(2), lambda ids, _: not repeats(ids, 2)),
    "trigrams": (no_repeated(3), lambda ids, _: not repeats(ids, 3)),
    "too long to be there": (no_repeated(9), lambda *_: True),
    "phrases": (NO_PHRASE, lambda ids, _: not any(holds(ids, phrase) for phrase in PHRASES)),
    "a word": (functools.partial(forbid, phrases=((4,),), pad_id=PAD), lambda ids, _: 4 not in ids),
}


@pytest.mark.parametrize("scoring", [GNMT, COVERED])
@pytest.mark.parametrize("name", RULES)
def test_wide_beam_equals_exhaustive_search_among_what_a_rule_leaves(name, scoring):
    rule, is_allowed = RULES[name]
    v, max_lengths = 5, (6, 1, 3)
    logits_of = tables(seed=3, v=v)
    logits_of[0, :, 4] += 1
    result = search(logits_of, max_lengths, 32, scoring, rules=(rule,))
    for i, longest in enumerate(max_lengths):
        all_there_are = exhaustive(logits_of[i], longest, scoring, v)
        expected = [each for each in all_there_are if is_allowed(each[1], longest)]
        assert 0 < len(expected) <= 63
        assert_hypotheses(result, i, expected)


def test_rules_go_together_and_with_a_prefix():
    """Which may do what they forbid, and counts for what comes after it."""
    v, max_lengths, prefixes = 6, (5, 5, 4), ((4, 4), (3, 4), ())
    logits_of = tables(seed=6, v=v)
    rules = (at_least(3), no_repeated(2), NO_PHRASE)
    result = search(logits_of, max_lengths, 100, GNMT, rules=rules, prefixes=prefixes)
    for i, (longest, prefix) in enumerate(zip(max_lengths, prefixes, strict=True)):
        expected = [
            (score, ids)
            for score, ids in exhaustive(logits_of[i], longest, GNMT, v)
            if ids[: len(prefix)] == prefix
            and len(ids) >= 3
            and not any(holds(ids[max(0, len(prefix) - len(p) + 1) :], p) for p in PHRASES)
            and not repeats(ids, 2)
        ]
        assert_hypotheses(result, i, expected)
        assert len(expected) > 1


@pytest.mark.parametrize("beam_size", [1, 3])
def test_narrow_beams_keep_to_the_rules(beam_size):
    v, max_lengths = 7, (20, 9, 4)
    logits_of = tables(seed=2, v=v)
    logits_of[:, :, EOS] += 1
    free = search(logits_of, max_lengths, beam_size, LONG)
    rules = (at_least(8), no_repeated(2), NO_PHRASE)
    result = search(logits_of, max_lengths, beam_size, LONG, rules=rules)
    assert (free.ids != result.ids).any()
    for i, j in itertools.product(range(3), range(beam_size)):
        ids = tuple(token for token in result.ids[i, j].tolist() if token != PAD)
        assert len(ids) >= min(8, max_lengths[i])
        assert not repeats(ids, 2) and not any(holds(ids, phrase) for phrase in PHRASES)


def test_samples_keep_to_the_rules():
    logits_of, count = tables(seed=2, v=6, sentences=1, sharpness=0.3), 200
    found = sample(
        functools.partial(step, jnp.asarray(logits_of)), start_cache([0], count),
        jnp.array([8], jnp.int32), jnp.zeros(1, jnp.uint32), sampler=Sampler(), seed=0,
        max_steps=8, num_samples=count, bos_id=BOS, eos_id=EOS, pad_id=PAD,
        rules=(at_least(4), no_repeated(3), NO_PHRASE),
    )  # fmt: skip
    samples = {tuple(t for t in ids if t != PAD) for ids in np.asarray(found.ids[0]).tolist()}
    assert len(samples) > 10
    for ids in samples:
        assert len(ids) >= 4 and not repeats(ids, 3)
        assert not any(holds(ids, phrase) for phrase in PHRASES)


def test_where_rules_leave_nothing_there_is_no_hypothesis():
    """Three tokens of text, none of which may come twice, are too few for a length of six."""
    logits_of, rules = tables(seed=2, v=6, sentences=1), (at_least(6), no_repeated(1))
    beams = search(logits_of, (8,), 2, LONG, rules=rules)
    samples = sample(
        functools.partial(step, jnp.asarray(logits_of)), start_cache([0], 4),
        jnp.array([8], jnp.int32), jnp.zeros(1, jnp.uint32), sampler=Sampler(), seed=0,
        max_steps=8, num_samples=4, bos_id=BOS, eos_id=EOS, pad_id=PAD, rules=rules,
    )  # fmt: skip
    for found in (beams, samples):
        assert (np.asarray(found.scores) == -np.inf).all()
        assert (np.asarray(found.ids) == PAD).all()
