"""The record of a search in languages drawn at random, of which all probabilities are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.made_up_languages import (
    BOS,
    COVERED,
    EOS,
    GNMT,
    PAD,
    PLAIN,
    SOURCE,
    assert_hypotheses,
    patient_search,
    score,
    start_cache,
    step,
    step_with_attention,
    tables,
)

from flax_transformer.decoding import loop
from flax_transformer.decoding.beam_search import beam_search

SENTENCES, V, LONGEST = 24, 7, 12


def recorded(logits_of, w, scoring):
    take_step = step_with_attention if scoring.coverage_penalty else step

    @jax.jit
    def run(cache, max_lengths):
        return beam_search(
            functools.partial(take_step, jnp.asarray(logits_of)), cache, max_lengths,
            np.tile(SOURCE, (SENTENCES, 1)), max_steps=LONGEST, beam_size=w, scoring=scoring,
            bos_id=BOS, eos_id=EOS, pad_id=PAD, record=True,
        )  # fmt: skip

    max_lengths = jnp.full(SENTENCES, LONGEST).at[5].set(0)
    return jax.tree.map(np.asarray, run(start_cache(range(SENTENCES), w), max_lengths))


@pytest.mark.parametrize(("w", "scoring"), [(1, GNMT), (3, COVERED)])
def test_candidates_are_hypotheses_with_their_probabilities_and_fates(monkeypatch, w, scoring):
    """Also of the sentences that go on in a smaller batch."""
    monkeypatch.setattr(loop, "_FEWEST", 1)
    logits_of = tables(seed=w, v=V, sentences=SENTENCES)
    logits_of[3:, :, EOS] += 1.5
    found = recorded(logits_of, w, scoring)
    record = found.record
    for i in range(SENTENCES):
        table = logits_of[i]
        assert_hypotheses(found, i, patient_search(table, LONGEST * (i != 5), w, scoring, V))
        live, ended = [()], []
        for t in range(LONGEST):
            new = []
            for place in np.flatnonzero(np.isfinite(record.log_probs[i, t])):
                ids = (*live[record.parents[i, t, place]], int(record.tokens[i, t, place]))
                new.append(ids)
                chance = score(table, ids, PLAIN)
                np.testing.assert_allclose(record.log_probs[i, t, place], chance, 1e-5, 1e-5)
                expected = score(table, ids, scoring)
                np.testing.assert_allclose(record.scores[i, t, place], expected, 1e-5, 1e-5)
            ended += [new[place] for place in np.flatnonzero(record.finished[i, t])]
            live = [new[place] for place in record.survivors[i, t] if place >= 0]
            assert EOS not in {ids[-1] for ids in live}
        best = sorted(ended, key=lambda ids: -score(table, ids, scoring))[:w]
        assert [list(ids) for ids in best] == [
            [token for token in ids if token != PAD] for ids in found.ids[i].tolist() if any(ids)
        ]
