"""Beam search over any step function, inside `lax.while_loop` (Section 6.1).

Letters: b batch, w beam width, s source length, t target length, v vocabulary, n candidates.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array, lax

from flax_transformer.decoding.candidates import (
    Candidates,
    best_candidates,
    gather_beams,
    gather_tokens,
)
from flax_transformer.decoding.hypotheses import Hypotheses, no_hypotheses
from flax_transformer.decoding.prefix import Prefix
from flax_transformer.decoding.scoring import Scoring

Cache = Any
"""What a step remembers: a pytree whose leaves have axes (any, batch, beam or 1, ...)."""

Step = Callable[[Array, Array, Cache], tuple]
"""(ids (b,w) int32, position () int32, cache) -> (logits (b,w,v) float32, cache); for a search with
a coverage penalty (logits, cache, attention (b,w,s) float32, which sums to one over the source)."""

Grow = Callable[[Cache, int], Cache]
"""(cache, t) -> the same cache with room for t positions."""

_FIRST_STAGE = 32

_SHRINK = 8
"""How many times smaller the batch is in which the last sentences go on when the others are done.
Every such batch is one more program to compile."""

_FEWEST = 8
"""Fewest sentences that are worth a batch of their own."""


def stages(max_steps: int) -> list[int]:
    """Returns the positions that a cache has room for at each stage: 32, 64, ..., max_steps.

    A step reads all of its cache, and most searches end long before their last position.
    """
    powers = range(_FIRST_STAGE.bit_length() - 1, max_steps.bit_length())
    return [1 << power for power in powers if 1 << power < max_steps] + [max_steps]


class _Rules(NamedTuple):
    """What holds during a whole search, of each sentence and of all."""

    max_lengths: Array  # (b,)
    prefix: Prefix | None
    scoring: Scoring
    bos_id: int
    eos_id: int
    pad_id: int


class _State(NamedTuple):
    """What the loop carries. A sentence is done when none of its `live_log_probs` is finite."""

    position: Array
    last_ids: Array  # (b,w)
    live_ids: Array  # (b,w,t)
    live_log_probs: Array  # (b,w)
    finished: Hypotheses
    coverage: Array | None  # (b,w,s), attention so far, with a coverage penalty only
    places: Array | None  # (b,w), with a prefix only: where in its last word they are
    cache: Cache


def beam_search(
    step: Step,
    cache: Cache,
    max_lengths: Array,
    source_mask: Array,
    *,
    max_steps: int,
    beam_size: int,
    bos_id: int,
    eos_id: int,
    pad_id: int,
    scoring: Scoring,
    grow: Grow | None = None,
    prefix: Prefix | None = None,
    record: bool = False,
) -> Hypotheses:
    """Finds the w = `beam_size` best continuations of BOS for each sentence.

    cache:       leaves (n, b, w, ...), which follow their hypotheses, or (n, b, 1, ...), which all
                 beams share; the model alone knows what n is
    max_lengths: (b,) int32, the longest hypothesis of each sentence, EOS included (at most
                 `max_steps` = t); a sentence of length 0, padding of the batch, has none
    source_mask: (b,s) bool, the positions that a coverage penalty counts
    grow:        with it the cache comes with room for stages(max_steps)[0] positions and is given
                 room for more when a sentence needs it
    prefix:      what each sentence's hypotheses begin with, shorter than its max_length
    record:      whether the hypotheses come with a `Record` of every position

    Probabilities are those of the whole vocabulary, but PAD and BOS are never chosen, and at its
    longest a hypothesis can only end.

    At each position the 2w most probable continuations of a sentence are its candidates. Those
    among the best w that end in EOS are finished; the best w that do not end stay live. A
    sentence is done when its w-th finished hypothesis is at least as good as any live one can
    become. That bound assumes the best: log probabilities only fall, no length divides by more than
    the longest, and all of the source may still be covered, for a coverage penalty of 0. So a
    sentence that is done misses nothing, and what it returns does not depend on the others in the
    batch.

    Width 1 is greedy search exactly: it is done at the first EOS, whatever the scoring. It takes
    the most probable token; of equally probable ones EOS, then the lowest id.
    """
    (b,) = max_lengths.shape
    chex.assert_type(max_lengths, jnp.int32)
    chex.assert_scalar_positive(max_steps)
    chex.assert_scalar_positive(beam_size)
    chex.assert_scalar_non_negative(scoring.length_penalty)
    chex.assert_scalar_non_negative(scoring.coverage_penalty)
    chex.assert_shape(source_mask, (b, None))
    if prefix is not None:
        chex.assert_shape([prefix.tokens, prefix.nexts], [(b, None), (b, None, None)])
    for leaf in jax.tree.leaves(cache):
        chex.assert_shape(leaf, (None, b, {1, beam_size}, ...))
    max_lengths = jnp.minimum(max_lengths, max_steps)
    rules = _Rules(max_lengths, prefix, scoring, bos_id=bos_id, eos_id=eos_id, pad_id=pad_id)
    finished = no_hypotheses(b, beam_size, max_steps, pad_id, record=record)
    state = _start(cache, rules, finished, source_mask)
    if grow is None:
        return _finish(step, rules, lambda cache, _: cache, state, [max_steps])
    return _finish(step, rules, grow, state, stages(max_steps))


def _finish(
    step: Step, rules: _Rules, grow: Grow, state: _State, ends: Sequence[int]
) -> Hypotheses:
    """Searches until every sentence is done; the cache has room for the first of `ends`.

    Most sentences of a batch are done long before the last one. When all but a few are, these go
    on in a batch of their own.
    """
    few = len(rules.max_lengths) // _SHRINK
    if few < _FEWEST:
        few = 0
    advance = partial(_advance, step, rules)

    def num_live(state: _State) -> Array:
        return _is_live(state).sum()

    def search(state: _State, ends: Sequence[int]) -> tuple[Hypotheses, Any]:
        """Searches until at most `few` are live; returns what is finished, their state and rows."""
        state = lax.while_loop(
            lambda s: (num_live(s) > few) & (s.position < ends[0]), advance, state
        )
        if len(ends) == 1:
            return leave(state)
        return lax.cond(
            num_live(state) > few,
            lambda s: search(s._replace(cache=grow(s.cache, ends[1])), ends[1:]),
            leave,
            state,
        )

    def leave(state: _State) -> tuple[Hypotheses, Any]:
        if not few:
            return state.finished, None
        rows = jnp.argsort(~_is_live(state))[:few]
        chosen = _take_rows(state, rows)
        return state.finished, (chosen._replace(cache=grow(chosen.cache, ends[-1])), rows)

    finished, rest = search(state, ends)
    if not few:
        return finished
    rest, rows = rest
    of_sentences = {"max_lengths": rules.max_lengths, "prefix": rules.prefix}
    rest_rules = rules._replace(**jax.tree.map(lambda array: array[rows], of_sentences))
    found = lax.cond(
        num_live(rest) > 0,
        lambda rest: _finish(step, rest_rules, grow, rest, ends[-1:]),
        lambda rest: rest.finished,
        rest,
    )
    return jax.tree.map(lambda whole, part: whole.at[rows].set(part), finished, found)


def _is_live(state: _State) -> Array:
    """Returns which sentences are not done: (b,) bool."""
    return (state.live_log_probs > -jnp.inf).any(axis=1)


def _take_rows(state: _State, rows: Array) -> _State:
    """Returns the state of some sentences alone."""
    cache = jax.tree.map(lambda leaf: leaf[:, rows], state.cache)
    kept = {"position": state.position, "cache": cache}
    others = {name: value for name, value in state._asdict().items() if name not in kept}
    return _State(**kept, **jax.tree.map(lambda array: array[rows], others))


def _start(cache: Cache, rules: _Rules, finished: Hypotheses, source_mask: Array) -> _State:
    b, w, _ = finished.ids.shape
    # One live beam only: w equal ones would fill the beam with copies of the same hypotheses.
    exists = (rules.max_lengths[:, None] > 0) & (jnp.arange(w)[None, :] == 0)
    coverage = None
    if rules.scoring.coverage_penalty:
        # Padding is covered from the start, so that no penalty falls on it.
        coverage = jnp.repeat(jnp.where(source_mask, 0.0, 1.0)[:, None], w, axis=1)
    return _State(
        position=jnp.zeros((), jnp.int32),
        last_ids=jnp.full((b, w), rules.bos_id, jnp.int32),
        live_ids=finished.ids,
        live_log_probs=jnp.where(exists, 0.0, -jnp.inf).astype(jnp.float32),
        finished=finished,
        coverage=coverage,
        places=None if rules.prefix is None else rules.prefix.start(w),
        cache=cache,
    )


def _advance(step: Step, rules: _Rules, state: _State) -> _State:
    w = state.live_log_probs.shape[1]
    logits, cache, *attention = step(state.last_ids, state.position, state.cache)
    length = state.position + 1
    candidates, places = _candidates(logits, rules, state, length)
    ids = gather_beams(state.live_ids, candidates.parents)
    ids = lax.dynamic_update_index_in_dim(ids, candidates.tokens, state.position, axis=2)

    ends = candidates.tokens == rules.eos_id
    coverage, coverage_terms = state.coverage, None
    if coverage is not None:
        coverage += attention[0]
        coverage_terms = gather_beams(rules.scoring.coverage_term(coverage), candidates.parents)
    score = partial(rules.scoring.score, length=length, coverage_terms=coverage_terms)
    ended = score(jnp.where(ends, candidates.log_probs, -jnp.inf))[:, :w]
    finished = state.finished.merge(ids[:, :w], ended)

    continuing = jnp.where(ends, -jnp.inf, candidates.log_probs)
    live_log_probs, chosen = lax.top_k(continuing, w)
    best_possible = live_log_probs[:, 0] / rules.scoring.divisor(rules.max_lengths)
    done = finished.scores[:, -1] >= best_possible
    if w == 1:
        done |= ends[:, 0]
    # A sentence that is done has candidates of -inf only, which change nothing any more.
    live_log_probs = jnp.where(done[:, None], -jnp.inf, live_log_probs)
    record = finished.record
    if record is not None:
        survivors = jnp.where(live_log_probs > -jnp.inf, chosen, -1)
        scores = score(candidates.log_probs)
        record = record.add(state.position, candidates, scores, ended > -jnp.inf, survivors)
    parents = gather_beams(candidates.parents, chosen)
    return _State(
        position=length,
        last_ids=gather_beams(candidates.tokens, chosen),
        live_ids=gather_beams(ids, chosen),
        live_log_probs=live_log_probs,
        finished=finished._replace(record=record),
        coverage=None if coverage is None else gather_beams(coverage, parents),
        places=None if places is None else gather_beams(places, chosen),
        cache=jax.tree.map(lambda leaf: _reorder(leaf, parents), cache),
    )


def _candidates(
    logits: Array, rules: _Rules, state: _State, length: Array
) -> tuple[Candidates, Array | None]:
    """Returns the candidates of `length` tokens, and their places (b,n) if there is a prefix."""
    chex.assert_shape(logits, (*state.live_log_probs.shape, None))
    chex.assert_type(logits, jnp.float32)
    find = partial(
        best_candidates,
        logits,
        state.live_log_probs,
        length >= rules.max_lengths,
        bos_id=rules.bos_id,
        eos_id=rules.eos_id,
        pad_id=rules.pad_id,
    )
    if rules.prefix is None or state.places is None:
        return find(), None
    forced = rules.prefix.forced(state.position, rules.pad_id)
    leads = rules.prefix.leads(state.places)
    candidates = find(forced, leads >= 0)
    stay = (forced != rules.pad_id)[:, None]
    return candidates, jnp.where(
        stay,
        gather_beams(state.places, candidates.parents),
        gather_tokens(leads, candidates).astype(jnp.int32),
    )


def _reorder(leaf: Array, parents: Array) -> Array:
    """Returns a cache leaf (n, b, w, ...) after its hypotheses moved; shared leaves stay."""
    if leaf.shape[2] == 1:
        return leaf
    return jax.vmap(gather_beams, in_axes=(0, None))(leaf, parents)
