"""Beam search over any step function, inside `lax.while_loop` (Section 6.1).

Letters: b batch, w beam width, s source length, t target length, v vocabulary, n candidates.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flax_transformer.decoding.candidates import Candidates, best_candidates, gather_beams
from flax_transformer.decoding.hypotheses import Hypotheses, no_hypotheses
from flax_transformer.decoding.loop import Cache, Grow, Sentences, Setting, State, Step, run, start
from flax_transformer.decoding.offers import Offer, offer
from flax_transformer.decoding.prefix import Prefix
from flax_transformer.decoding.rules import Rule
from flax_transformer.decoding.scoring import Scoring


class Selection(NamedTuple):
    """What may follow the live hypotheses of each sentence, and what of it stays live.

    candidates: (b,n), n at least w
    log_probs:  (b,w), of those that stay live, the most probable first; -inf where there are fewer
    chosen:     (b,w) int32, their places among the candidates
    """

    candidates: Candidates
    log_probs: Array
    chosen: Array


Lengthen = Callable[[Offer, Scoring, Setting, State], tuple[State, Array]]
"""Lengthens live hypotheses by what they are offered. Returns the state after it, but for the
cache, and which hypothesis each of the live ones came from (b,w)."""


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
    rules: Sequence[Rule] = (),
    lengthen: Lengthen | None = None,
    groups: int = 1,
    required: Array | None = None,
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
    rules:       what hypotheses must not do
    lengthen:    which hypotheses are kept; by default `lengthen_best`
    groups:      how many groups of beams begin by themselves, for a `lengthen` that keeps them
                 apart
    required:    (b,c,p) int32, for a `lengthen` that sees to it: the phrases that hypotheses hold
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
    chex.assert_scalar_positive(beam_size)
    chex.assert_scalar_non_negative(scoring.length_penalty)
    chex.assert_scalar_non_negative(scoring.coverage_penalty)
    chex.assert_shape(source_mask, (b, None))
    sentences = Sentences(jnp.minimum(max_lengths, max_steps), prefix, required=required)
    setting = Setting(sentences, rules, bos_id=bos_id, eos_id=eos_id, pad_id=pad_id)
    finished = no_hypotheses(b, beam_size, max_steps, pad_id, record=record)
    # One live beam only: w equal ones would fill the beam with copies of the same hypotheses.
    exists = np.arange(beam_size) % (beam_size // groups) == 0
    coverage = None
    if scoring.coverage_penalty:
        # Padding is covered from the start, so that no penalty falls on it.
        coverage = jnp.repeat(jnp.where(source_mask, 0.0, 1.0)[:, None], beam_size, axis=1)
    state = start(cache, setting, finished, exists, coverage)
    advance = partial(_advance, step, lengthen or lengthen_best, scoring)
    found = run(advance, setting, state, max_steps, grow)
    return found if groups == 1 else found.best_first()


def _advance(
    step: Step, lengthen: Lengthen, scoring: Scoring, setting: Setting, state: State
) -> State:
    logits, cache, *attention = step(state.last_ids, state.position, state.cache)
    if state.coverage is not None:
        state = state._replace(coverage=state.coverage + attention[0])
    state, parents = lengthen(offer(logits, setting, state), scoring, setting, state)
    return state._replace(cache=jax.tree.map(lambda leaf: _reorder(leaf, parents), cache))


def lengthen_best(
    made: Offer, scoring: Scoring, setting: Setting, state: State
) -> tuple[State, Array]:
    """Keeps the most probable hypotheses of each sentence."""
    candidates = best_candidates(
        made.logits,
        state.live_log_probs,
        made.must_end,
        made.forced,
        made.offered,
        bos_id=setting.bos_id,
        eos_id=setting.eos_id,
        pad_id=setting.pad_id,
    )
    ends = candidates.tokens == setting.eos_id
    continuing = jnp.where(ends, -jnp.inf, candidates.log_probs)
    selection = Selection(candidates, *lax.top_k(continuing, state.live_log_probs.shape[1]))
    return settle(selection, made, scoring, setting, state)


def settle(
    selection: Selection, made: Offer, scoring: Scoring, setting: Setting, state: State
) -> tuple[State, Array]:
    """Returns what a `Lengthen` does, once it is known which candidates stay live.

    Of the first w candidates those that end in EOS are finished.
    """
    w = state.live_log_probs.shape[1]
    length = state.position + 1
    candidates, live_log_probs, chosen = selection
    ids = gather_beams(state.live_ids, candidates.parents)
    ids = lax.dynamic_update_index_in_dim(ids, candidates.tokens, state.position, axis=2)

    ends, coverage_terms = candidates.tokens == setting.eos_id, None
    if state.coverage is not None:
        coverage_terms = gather_beams(scoring.coverage_term(state.coverage), candidates.parents)
    score = partial(scoring.score, length=length, coverage_terms=coverage_terms)
    ended = score(jnp.where(ends, candidates.log_probs, -jnp.inf))[:, :w]
    finished = state.finished.merge(ids[:, :w], ended)

    best_possible = live_log_probs[:, 0] / scoring.divisor(setting.sentences.max_lengths)
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
    tokens = gather_beams(candidates.tokens, chosen)
    state = state._replace(
        position=length,
        last_ids=tokens,
        live_ids=gather_beams(ids, chosen),
        live_log_probs=live_log_probs,
        finished=finished._replace(record=record),
        coverage=None if state.coverage is None else gather_beams(state.coverage, parents),
        places=made.places_after(state, parents, tokens, setting.pad_id),
    )
    return state, parents


def _reorder(leaf: Array, parents: Array) -> Array:
    """Returns a cache leaf (n, b, w, ...) after its hypotheses moved; shared leaves stay."""
    if leaf.shape[2] == 1:
        return leaf
    return jax.vmap(gather_beams, in_axes=(0, None))(leaf, parents)
