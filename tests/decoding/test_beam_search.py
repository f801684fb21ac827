"""Beam search against exhaustive search, greedy search and a search without early exit."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.made_up_languages import (
    BOS,
    COVERED,
    COVERED_MEAN,
    EOS,
    GNMT,
    LONG,
    MEAN,
    PAD,
    PLAIN,
    POWER,
    SOURCE,
    STATES,
    assert_hypotheses,
    exhaustive,
    next_state,
    patient_search,
    score,
    search,
    start_cache,
    step,
    step_with_attention,
    tables,
    words,
)

from flax_transformer.decoding import loop
from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.candidates import largest_logits
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.loop import stages
from flax_transformer.decoding.scoring import Scoring


@pytest.mark.parametrize(
    ("v", "max_lengths", "beam_size", "scoring"),
    [
        (4, (6, 1, 3), 8, GNMT),
        (5, (4, 2, 3), 15, PLAIN),
        (5, (4, 2, 3), 15, LONG),
        (5, (4, 2, 3), 15, MEAN),
        (5, (4, 2, 3), 15, COVERED),
        (4, (6, 1, 3), 8, COVERED_MEAN),
    ],
)
def test_wide_beam_equals_exhaustive_search(v, max_lengths, beam_size, scoring):
    # So wide that at no position a candidate is lost, and every hypothesis is returned.
    logits_of = tables(seed=v, v=v)
    result = search(logits_of, max_lengths, beam_size, scoring)
    for i, max_length in enumerate(max_lengths):
        assert_hypotheses(result, i, exhaustive(logits_of[i], max_length, scoring, v))


@pytest.mark.parametrize(
    ("beam_size", "scoring"),
    [
        (1, GNMT), (2, PLAIN), (3, GNMT), (5, LONG), (3, MEAN), (2, POWER), (1, COVERED),
        (3, COVERED), (4, COVERED_MEAN),
    ],
)  # fmt: skip
def test_early_exit_changes_nothing(beam_size, scoring):
    v, max_lengths = 7, (12, 5, 9, 1, 12, 12)
    logits_of = tables(seed=beam_size, v=v, sentences=6)
    logits_of[4:, :, EOS] += 2  # sentences that end long before their limit
    result = search(logits_of, max_lengths, beam_size, scoring)
    for i, max_length in enumerate(max_lengths):
        expected = patient_search(logits_of[i], max_length, beam_size, scoring, v)
        assert_hypotheses(result, i, expected)


def test_a_beam_that_ended_whole_may_still_be_continued_to_the_best():
    """By hypotheses that took no place of it; where length pays, several of these sentences have
    their best, or their second, among them."""
    v, max_lengths = 7, (12,) * 40
    logits_of = tables(seed=5, v=v, sentences=40, sharpness=2.0)
    logits_of[:, :, EOS] += 3
    result = search(logits_of, max_lengths, 2, MEAN)
    for i, max_length in enumerate(max_lengths):
        assert_hypotheses(result, i, patient_search(logits_of[i], max_length, 2, MEAN, v))


def test_a_live_hypothesis_may_still_cover_what_it_has_not():
    """Ended early, several of these sentences would lose a hypothesis that catches up."""
    v, scoring, max_lengths = 7, PLAIN._replace(coverage_penalty=4.0), (12,) * 40
    logits_of = tables(seed=3, v=v, sentences=40, sharpness=0.5)
    logits_of[:, :, EOS] += 1
    result = search(logits_of, max_lengths, 3, scoring)
    for i, max_length in enumerate(max_lengths):
        assert_hypotheses(result, i, patient_search(logits_of[i], max_length, 3, scoring, v))


def test_search_stops_as_soon_as_no_live_hypothesis_can_win():
    positions = []

    def on_step(position):
        jax.debug.callback(lambda p: positions.append(int(p)), position)

    logits_of = np.full((2, STATES, 5), -50, np.float32)
    logits_of[:, :, 3], logits_of[:, :, EOS] = 1, 0
    logits_of[1, :, EOS] = -100
    word, end = -np.log1p(np.exp(-1)), -np.log1p(np.exp(1))
    result = search(logits_of, (40, 40), 2, PLAIN, sentences=[0, 0], on_step=on_step)
    jax.effects_barrier()
    assert_hypotheses(result, 0, [(end, (EOS,)), (word + end, (3, EOS))])
    # Nothing beats the second of these once its log probability is that of `steps` words.
    steps = int(np.ceil((word + end) / word))
    assert sorted(positions) == list(range(steps))
    positions.clear()
    search(logits_of, (40, 40), 2, PLAIN, sentences=[0, 1], on_step=on_step)
    jax.effects_barrier()
    assert sorted(positions) == list(range(40))  # the second has nothing to return before


def test_beam_of_one_is_greedy_search():
    # A penalty that favours long hypotheses, of which greedy search takes no notice.
    scoring, v, max_lengths = Scoring(length_penalty=3.0), 9, (20, 7, 20, 1, 20)
    logits_of = tables(seed=3, v=v, sentences=5, sharpness=1.0)
    result = search(logits_of, max_lengths, 1, scoring)
    for i, max_length in enumerate(max_lengths):
        ids, state = [], next_state(0, BOS)
        while not ids or ids[-1] != EOS:
            allowed = [EOS] if len(ids) + 1 == max_length else [EOS, *words(v)]
            ids.append(allowed[int(np.argmax(logits_of[i, state, allowed]))])
            state = next_state(state, ids[-1])
        assert_hypotheses(result, i, [(score(logits_of[i], ids, scoring), tuple(ids))])


def test_beam_of_one_breaks_ties_as_greedy_search_does():
    logits_of = np.zeros((1, STATES, 6), np.float32)
    assert search(logits_of, (4,), 1, GNMT).ids.tolist() == [[[EOS, PAD, PAD, PAD]]]
    logits_of[:, :, EOS] = -1
    assert search(logits_of, (4,), 1, GNMT).ids.tolist() == [[[3, 3, 3, EOS]]]


@pytest.mark.parametrize(("beam_size", "scoring"), [(1, GNMT), (4, GNMT), (4, COVERED_MEAN)])
def test_hypotheses_are_well_formed_and_scores_are_theirs(beam_size, scoring):
    max_lengths = (10, 3, 7)
    logits_of = tables(seed=11, v=8)
    logits_of[:, :, [PAD, BOS]] += 3  # most probable, and still never chosen
    result = search(logits_of, max_lengths, beam_size, scoring, max_steps=12)
    chex.assert_shape(result.ids, (3, beam_size, 12))
    for i, j in np.ndindex(3, beam_size):
        ids = result.ids[i, j].tolist()
        length = ids.index(EOS) + 1
        assert length <= max_lengths[i] and set(ids[length:]) <= {PAD}
        assert not {PAD, EOS, BOS} & set(ids[: length - 1])
        np.testing.assert_allclose(
            result.scores[i, j], score(logits_of[i], ids[:length], scoring), 1e-5, 1e-5
        )
    assert (np.diff(result.scores, axis=1) <= 0).all()
    assert all(len(np.unique(hypotheses, axis=0)) == beam_size for hypotheses in result.ids)


def test_neighbours_do_not_matter():
    logits_of = tables(seed=5, v=7)
    logits_of[0, :, EOS] += 3
    logits_of[1, :, EOS] -= 3  # runs long after the first is done
    max_lengths = (20, 20, 8)
    together = search(logits_of, max_lengths, 3, GNMT)
    for i, max_length in enumerate(max_lengths):
        alone = search(logits_of, (max_length,), 3, GNMT, sentences=[i], max_steps=20)
        np.testing.assert_array_equal(together.ids[i], alone.ids[0])
        np.testing.assert_array_equal(together.scores[i], alone.scores[0])


@pytest.mark.parametrize("scoring", [GNMT, COVERED])
def test_the_last_sentences_of_a_batch_go_on_in_a_smaller_one(monkeypatch, scoring):
    """And find what they find in the batch that they came from, in its order."""
    logits_of, beam_size, max_steps, sentences = tables(5, v=6, sentences=64), 3, 20, 64
    # Four in the middle never end of themselves; two are padding.
    stubborn = [9, 33, 34, 60]
    logits_of[stubborn, :, EOS] = -30.0
    logits_of = jnp.asarray(logits_of)
    max_lengths = jnp.full(sentences, max_steps, jnp.int32).at[jnp.array([0, 35])].set(0)
    take_step = step_with_attention if scoring.coverage_penalty else step
    batches = []

    def run(few: int) -> Hypotheses:
        monkeypatch.setattr(loop, "_FEWEST", few)

        def observed_step(ids, position, cache):
            jax.debug.callback(lambda _: batches.append(len(ids)), position)
            return take_step(logits_of, ids, position, cache)

        found = jax.jit(
            lambda cache: beam_search(
                observed_step, cache, max_lengths, np.tile(SOURCE, (sentences, 1)),
                max_steps=max_steps, beam_size=beam_size, scoring=scoring,
                bos_id=BOS, eos_id=EOS, pad_id=PAD,
            )
        )(start_cache(range(sentences), beam_size))  # fmt: skip
        return jax.tree.map(np.asarray, found)

    whole = run(sentences)
    assert batches == [64] * max_steps
    batches.clear()
    shrunk = run(8)
    chex.assert_trees_all_equal(shrunk.ids, whole.ids)
    chex.assert_trees_all_close(shrunk.scores, whole.scores, rtol=1e-5)
    assert set(batches) == {64, 8} and len(batches) == max_steps
    assert batches == sorted(batches, reverse=True) and batches.count(8) > 5


def test_padding_sentences_have_no_hypotheses():
    result = search(tables(seed=1, v=5, sentences=2), (0, 4), 2, GNMT)
    assert_hypotheses(result, 0, [])
    assert np.isfinite(result.scores[1]).all()


def test_no_hypothesis_is_longer_than_max_steps():
    logits_of = tables(seed=1, v=6)
    logits_of[:, :, EOS] -= 50
    cut = search(logits_of, (9, 5, 2**31 - 1), 2, GNMT, max_steps=5)
    exact = search(logits_of, (5, 5, 5), 2, GNMT)
    chex.assert_trees_all_equal(cut, exact)


@pytest.mark.parametrize(("max_steps", "ends"), [(1, [1]), (32, [32]), (82, [32, 64, 82])])
def test_stages_end_at_the_last_step(max_steps, ends):
    assert stages(max_steps) == ends


def test_a_cache_that_grows_when_it_is_needed_changes_nothing():
    """Each beam's cache is the prefix itself, with room for the positions of a stage."""
    logits_of = tables(seed=2, v=6)
    logits_of[1:, :, EOS] -= 40  # only the first sentence ends in the first stage
    logits_of = jnp.asarray(logits_of)
    rooms = []

    def prefix_step(ids, position, cache):
        prefix = jax.lax.dynamic_update_index_in_dim(cache["prefix"], ids[None], position, axis=3)
        state = jax.lax.fori_loop(
            0, position + 1, lambda i, state: next_state(state, prefix[0, :, :, i]), 0 * ids
        )
        return logits_of[cache["sentence"][0], state], cache | {"prefix": prefix}

    def grow(cache, steps):
        jax.debug.callback(lambda: rooms.append(steps))
        more = steps - cache["prefix"].shape[3]
        return cache | {"prefix": jnp.pad(cache["prefix"], ((0, 0), (0, 0), (0, 0), (0, more)))}

    @jax.jit
    def run(max_lengths):
        cache = start_cache(range(3), 2) | {"prefix": jnp.zeros((1, 3, 2, 32), jnp.int32)}
        return beam_search(
            prefix_step, cache, max_lengths, jnp.ones((3, 1), bool), max_steps=70, beam_size=2,
            scoring=GNMT, bos_id=BOS, eos_id=EOS, pad_id=PAD, grow=grow,
        )  # fmt: skip

    for max_lengths, grown in (((20, 32, 7), []), ((70, 50, 33), [64]), ((70, 70, 65), [64, 70])):
        found = run(jnp.array(max_lengths, jnp.int32))
        jax.effects_barrier()
        assert rooms == grown
        rooms.clear()
        expected = search(logits_of, max_lengths, 2, GNMT, max_steps=70)
        chex.assert_trees_all_equal(found.ids, expected.ids)
        chex.assert_trees_all_close(found.scores, expected.scores)


def test_coverage_prefers_the_hypothesis_that_attended_to_all():
    """Of two translations, equally probable but for a little, the better covered one wins."""
    logits_of = tables(seed=4, v=6, sentences=1)
    plain, covered = (
        search(logits_of, (5,), 8, GNMT._replace(coverage_penalty=beta)) for beta in (0.0, 5.0)
    )

    def coverage(ids):
        cut = [token for token in ids.tolist() if token != PAD]
        return score(logits_of[0], cut, COVERED) - score(logits_of[0], cut, GNMT)

    assert coverage(covered.ids[0, 0]) > coverage(plain.ids[0, 0])


def test_search_compiles_once_for_a_shape():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(logits_of, cache, max_lengths):
        return beam_search(
            functools.partial(step, logits_of), cache, max_lengths, jnp.ones((3, 1), bool),
            max_steps=6, beam_size=2, scoring=GNMT, bos_id=BOS, eos_id=EOS, pad_id=PAD,
        )  # fmt: skip

    for seed, max_lengths in enumerate([(6, 6, 6), (1, 2, 3)]):
        run(tables(seed, v=6), start_cache(range(3), 2), jnp.array(max_lengths, jnp.int32))


@pytest.mark.parametrize("v", [129, 200, 1003])
def test_largest_is_top_k(v):
    generator = np.random.default_rng(v)
    for logits in (
        generator.normal(size=(2, 3, v)),
        generator.integers(0, 4, size=(2, 3, v)),  # ties everywhere
        generator.integers(0, v // 4, size=(2, 3, v)),
        np.broadcast_to(np.arange(v), (2, 3, v)),  # the largest in the last block
        np.full((2, 3, v), -np.inf),
    ):
        logits = jnp.asarray(logits, jnp.float32)
        found = jax.jit(functools.partial(largest_logits, k=5, block=8))(logits)
        chex.assert_trees_all_equal(found, tuple(jax.lax.top_k(logits, 5)))


def test_shapes_are_checked():
    with pytest.raises(AssertionError):
        search(tables(0, 5), (3, 3), 2, GNMT, sentences=[0, 1, 2])
