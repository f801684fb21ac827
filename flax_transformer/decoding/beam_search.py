"""Beam search over any step function, inside `lax.while_loop` (Section 6.1).

Letters: b batch, w beam width, s source length, t target length, v vocabulary, n candidates.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array, lax

from flax_transformer.decoding.candidates import best_candidates, gather_beams

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


class Hypotheses(NamedTuple):
    """The best w hypotheses of each sentence, best first.

    ids:    (b,w,t) int32, without BOS, ending in EOS, then PAD; all PAD where fewer than w exist
    scores: (b,w) float32, natural-log probability divided by the length penalty, plus the coverage
            penalty; -inf where none exists
    """

    ids: Array
    scores: Array


class Scoring(NamedTuple):
    """How hypotheses of different lengths are compared.

    The score of Y is log P(Y) / lp(Y) + cp(Y), with |Y| tokens, EOS counted. lp(Y) is
    ((5 + |Y|) / 6)^length_penalty for "gnmt" (Wu et al. 2016, equation 14) and
    |Y|^length_penalty for "power", the mean log probability where length_penalty is 1.
    cp(Y) = coverage_penalty * sum over the source of log(min(coverage, 1)), where coverage is the
    attention that a source position got from all tokens of Y (the same equation).
    """

    length_normalization: Literal["gnmt", "power"] = "gnmt"
    length_penalty: float = 0.6
    coverage_penalty: float = 0.0

    def divisor(self, length: Array) -> Array:
        """Returns lp of hypotheses of `length` tokens; it never falls with the length."""
        base = (5.0 + length) / 6.0 if self.length_normalization == "gnmt" else 1.0 * length
        return base**self.length_penalty

    def coverage_term(self, coverage: Array) -> Array:
        """Returns cp (b,w) for `coverage` (b,w,s); never above 0."""
        # A position that got nothing at all would make every hypothesis equally bad: -inf.
        least = jnp.finfo(jnp.float32).tiny
        return self.coverage_penalty * jnp.log(jnp.clip(coverage, least, 1.0)).sum(axis=2)


class _Rules(NamedTuple):
    """What holds during a whole search; max_lengths is (b,)."""

    max_lengths: Array
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
) -> Hypotheses:
    """Finds the w = `beam_size` best continuations of BOS for each sentence.

    cache:       leaves (n, b, w, ...), which follow their hypotheses, or (n, b, 1, ...), which all
                 beams share; the model alone knows what n is
    max_lengths: (b,) int32, the longest hypothesis of each sentence, EOS included (at most
                 `max_steps` = t); a sentence of length 0, padding of the batch, has none
    source_mask: (b,s) bool, the positions that a coverage penalty counts
    grow:        with it the cache comes with room for stages(max_steps)[0] positions and is given
                 room for more when a sentence needs it

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
    for leaf in jax.tree.leaves(cache):
        chex.assert_shape(leaf, (None, b, {1, beam_size}, ...))
    max_lengths = jnp.minimum(max_lengths, max_steps)
    rules = _Rules(max_lengths, scoring, bos_id=bos_id, eos_id=eos_id, pad_id=pad_id)
    state = _start(cache, rules, max_steps, beam_size, source_mask)
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
    rest_rules = rules._replace(max_lengths=rules.max_lengths[rows])
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


def _start(cache: Cache, rules: _Rules, max_steps: int, w: int, source_mask: Array) -> _State:
    (b,) = rules.max_lengths.shape
    # One live beam only: w equal ones would fill the beam with copies of the same hypotheses.
    exists = (rules.max_lengths[:, None] > 0) & (jnp.arange(w)[None, :] == 0)
    no_ids = jnp.full((b, w, max_steps), rules.pad_id, jnp.int32)
    coverage = None
    if rules.scoring.coverage_penalty:
        # Padding is covered from the start, so that no penalty falls on it.
        coverage = jnp.repeat(jnp.where(source_mask, 0.0, 1.0)[:, None], w, axis=1)
    return _State(
        position=jnp.zeros((), jnp.int32),
        last_ids=jnp.full((b, w), rules.bos_id, jnp.int32),
        live_ids=no_ids,
        live_log_probs=jnp.where(exists, 0.0, -jnp.inf).astype(jnp.float32),
        finished=Hypotheses(no_ids, jnp.full((b, w), -jnp.inf, jnp.float32)),
        coverage=coverage,
        cache=cache,
    )


def _advance(step: Step, rules: _Rules, state: _State) -> _State:
    dims = chex.Dimensions()
    dims["bw"] = state.live_log_probs.shape
    w = state.live_log_probs.shape[1]
    logits, cache, *attention = step(state.last_ids, state.position, state.cache)
    chex.assert_shape(logits, (*dims["bw"], None))
    chex.assert_type(logits, jnp.float32)
    length = state.position + 1
    candidates = best_candidates(
        logits,
        state.live_log_probs,
        length >= rules.max_lengths,
        bos_id=rules.bos_id,
        eos_id=rules.eos_id,
        pad_id=rules.pad_id,
    )
    ids = gather_beams(state.live_ids, candidates.parents)
    ids = lax.dynamic_update_index_in_dim(ids, candidates.tokens, state.position, axis=2)

    ends = candidates.tokens == rules.eos_id
    ended = jnp.where(ends, candidates.log_probs, -jnp.inf) / rules.scoring.divisor(length)
    coverage = state.coverage
    if coverage is not None:
        coverage += attention[0]
        ended += gather_beams(rules.scoring.coverage_term(coverage), candidates.parents)
    finished = _merge(state.finished, ids[:, :w], ended[:, :w])

    continuing = jnp.where(ends, -jnp.inf, candidates.log_probs)
    live_log_probs, chosen = lax.top_k(continuing, w)
    best_possible = live_log_probs[:, 0] / rules.scoring.divisor(rules.max_lengths)
    done = finished.scores[:, -1] >= best_possible
    if w == 1:
        done |= ends[:, 0]
    parents = gather_beams(candidates.parents, chosen)
    return _State(
        position=length,
        last_ids=gather_beams(candidates.tokens, chosen),
        live_ids=gather_beams(ids, chosen),
        # A sentence that is done has candidates of -inf only, which change nothing any more.
        live_log_probs=jnp.where(done[:, None], -jnp.inf, live_log_probs),
        finished=finished,
        coverage=None if coverage is None else gather_beams(coverage, parents),
        cache=jax.tree.map(lambda leaf: _reorder(leaf, parents), cache),
    )


def _merge(finished: Hypotheses, ids: Array, scores: Array) -> Hypotheses:
    """Returns the best w of both; of equals those finished before: -inf never replaces -inf."""
    w = finished.scores.shape[1]
    scores, chosen = lax.top_k(jnp.concatenate([finished.scores, scores], axis=1), w)
    return Hypotheses(gather_beams(jnp.concatenate([finished.ids, ids], axis=1), chosen), scores)


def _reorder(leaf: Array, parents: Array) -> Array:
    """Returns a cache leaf (n, b, w, ...) after its hypotheses moved; shared leaves stay."""
    if leaf.shape[2] == 1:
        return leaf
    return jax.vmap(gather_beams, in_axes=(0, None))(leaf, parents)
