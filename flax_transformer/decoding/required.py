"""Phrases that hypotheses must hold: lexically constrained beam search.

Hokamp and Liu (2017) give every number of tokens of the phrases a beam of its own, so the width
grows with the phrases. Here one beam of fixed width is shared out among these numbers anew at each
position (Post and Vilar 2018), by sorting alone (Hu et al. 2019): shapes are fixed, and every
sentence of a batch may have phrases of its own.

Letters: b batch, w beam width, n candidates, c phrases, p tokens of a phrase, t target length,
v vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flax_transformer.decoding.beam_search import Selection, settle
from flax_transformer.decoding.candidates import (
    Candidates,
    gather_beams,
    gather_tokens,
    largest_logits,
)
from flax_transformer.decoding.loop import Setting, State
from flax_transformer.decoding.offers import Offer, only_offered
from flax_transformer.decoding.scoring import Scoring


class Progress(NamedTuple):
    """How far hypotheses are with the phrases of their sentence.

    met:   (b,n,c) bool, the phrases that they hold; one without tokens is held from the start
    begun: (b,n,c) int32, how many tokens of each other phrase they end in
    """

    met: Array
    begun: Array

    def tokens(self, required: Array, pad_id: int) -> Array:
        """Returns the tokens of phrases that are there (b,n): of those that are met, and of the
        one that is furthest. Its next token always makes them more."""
        sizes = (required != pad_id).sum(axis=2)[:, None, :]
        return jnp.where(self.met, sizes, 0).sum(axis=2) + self.begun.max(axis=2)


def measure(ids: Array, length: Array, required: Array, pad_id: int) -> Progress:
    """Returns the progress of hypotheses (b,n,t) of `length` () tokens each, then PAD.

    required: (b,c,p) int32, the tokens of each phrase, then PAD
    """
    t, p = ids.shape[2], required.shape[2]
    phrases = required[:, None]  # bncp
    padded = jnp.pad(ids, ((0, 0), (0, 0), (p, p)), constant_values=pad_id)
    is_there = jnp.ones((*ids.shape, required.shape[1]), bool)  # bntc
    for place in range(p):
        now = padded[:, :, p + place : p + place + t, None]
        wanted = phrases[:, :, None, :, place]
        is_there &= (now == wanted) | (wanted == pad_id)
    met = is_there.any(axis=2)

    latest = lax.dynamic_slice_in_dim(padded, length, p, axis=2)
    counts, places = np.arange(p), np.arange(p)
    # The latest `count` tokens against the first `count` of the phrase, for each count below p.
    ends = latest[:, :, np.minimum(p - counts[:, None] + places[None, :], p - 1)]
    same = (ends[:, :, None] == phrases[:, :, :, None]) | (places >= counts[:, None])[
        None, None, None
    ]
    begun = jnp.where(same.all(axis=4), counts[None, None, None], 0).max(axis=3)
    return Progress(met, jnp.where(met, 0, begun))


def lengthen_required(
    made: Offer, scoring: Scoring, setting: Setting, state: State
) -> tuple[State, Array]:
    """Keeps hypotheses with every number of the phrases' tokens: first the best of each number,
    then the second best, until the beam is full. Only those that hold all phrases may end.

    Besides the 2w most probable continuations, the best of every hypothesis and the tokens that its
    phrases need next are candidates. The latter no rule takes away. So a sentence with room for all
    phrases has a hypothesis. Of the candidates that hold all phrases, those among the best w that
    end are finished: without phrases it is beam search.
    """
    w = state.live_log_probs.shape[1]
    required = setting.sentences.required
    before = measure(state.live_ids, state.position, required, setting.pad_id)
    candidates = _candidates(made, before, setting, state)
    ids = gather_beams(state.live_ids, candidates.parents)
    ids = lax.dynamic_update_index_in_dim(ids, candidates.tokens, state.position, axis=2)
    progress = measure(ids, state.position + 1, required, setting.pad_id)
    tokens = progress.tokens(required, setting.pad_id)
    ends, log_probs = candidates.tokens == setting.eos_id, candidates.log_probs

    holds_all = progress.met.all(axis=2)
    finishing = ends & (_ranks(log_probs, holds_all.astype(jnp.int32)) < w)
    finished, last = lax.top_k(jnp.where(finishing, log_probs, -jnp.inf), w)

    continuing = jnp.where(ends, -jnp.inf, log_probs)
    most = required.shape[1] * required.shape[2] + 1
    order = _ranks(continuing, tokens) * most - tokens
    order = jnp.where(continuing > -jnp.inf, order, jnp.iinfo(jnp.int32).max)
    _, kept = lax.top_k(-order, w)
    live, sorted_by = lax.top_k(gather_beams(continuing, kept), w)
    kept = gather_beams(kept, sorted_by)

    places = jnp.concatenate([last, kept], axis=1)
    chosen = jnp.broadcast_to(jnp.arange(w, 2 * w)[None], kept.shape)
    nothing = jnp.concatenate([finished == -jnp.inf, jnp.zeros_like(kept, bool)], axis=1)
    settled = Candidates(
        gather_beams(candidates.parents, places),
        jnp.where(nothing, setting.pad_id, gather_beams(candidates.tokens, places)),
        jnp.concatenate([finished, live], axis=1),
    )
    return settle(Selection(settled, live, chosen), made, scoring, setting, state)


def _candidates(made: Offer, before: Progress, setting: Setting, state: State) -> Candidates:
    """Returns the candidates (b,n) of a position, in no order; of equal ones but one is finite."""
    b, w, v = made.logits.shape
    c = before.begun.shape[2]
    normalizer = jax.nn.logsumexp(made.logits, axis=2, keepdims=True)
    so_far = state.live_log_probs[:, :, None] - normalizer

    is_end = (jnp.arange(v) == setting.eos_id)[None, None, :]
    may_end = before.met.all(axis=2, keepdims=True)
    offered = jnp.where(is_end & ~may_end, -jnp.inf, only_offered(made, setting))
    values, tokens = largest_logits(offered, min(2 * w, v))
    values = (values + so_far).reshape(b, -1)
    tokens = tokens.reshape(b, -1)
    _, best = lax.top_k(values, 2 * w)
    firsts = jnp.broadcast_to(jnp.arange(w) * (tokens.shape[1] // w), (b, w))
    best = jnp.concatenate([best, firsts], axis=1)

    needed = _needed(before, setting).reshape(b, w * c)
    owners = jnp.broadcast_to(jnp.repeat(jnp.arange(w), c), needed.shape)
    given = gather_tokens(_without_rules(made, setting) + so_far, owners, needed)

    candidates = Candidates(
        jnp.concatenate([best // (tokens.shape[1] // w), owners], axis=1),
        jnp.concatenate([gather_beams(tokens, best), needed], axis=1),
        jnp.concatenate([gather_beams(values, best), given], axis=1),
    )
    same = candidates.parents * v + candidates.tokens
    copies = _ranks(candidates.log_probs, same)
    log_probs = jnp.where(copies > 0, -jnp.inf, candidates.log_probs)
    return candidates._replace(log_probs=log_probs)


def _needed(before: Progress, setting: Setting) -> Array:
    """Returns the token that each phrase needs next (b,w,c), PAD where it is met."""
    required = setting.sentences.required[:, None]
    shape = (*before.begun.shape, required.shape[3])
    begun = before.begun[:, :, :, None]
    found = jnp.take_along_axis(jnp.broadcast_to(required, shape), begun, axis=3)[:, :, :, 0]
    return jnp.where(before.met, setting.pad_id, found)


def _without_rules(made: Offer, setting: Setting) -> Array:
    """Returns the logits (b,w,v) of what may follow if no rule is asked."""
    if made.leads is not None:
        fits = jnp.where(made.leads >= 0, made.logits, -jnp.inf)
        return only_offered(made._replace(offered=fits), setting)
    return only_offered(made._replace(offered=None), setting)


def _ranks(log_probs: Array, kinds: Array) -> Array:
    """Returns how many of the same kind are more probable, for each of (b,n); equals in order."""
    n = log_probs.shape[1]
    one, other = log_probs[:, :, None], log_probs[:, None, :]
    is_earlier = (jnp.arange(n)[None, :] < jnp.arange(n)[:, None])[None]
    is_before = (other > one) | ((other == one) & is_earlier)
    return (is_before & (kinds[:, :, None] == kinds[:, None, :])).sum(axis=2)
