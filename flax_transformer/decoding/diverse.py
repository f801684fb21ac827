"""Diverse beam search (Vijayakumar et al. 2018): groups of beams that avoid each other's tokens.

Letters: b batch, w beams of all groups, v vocabulary.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from flax_transformer.decoding.beam_search import Selection, settle
from flax_transformer.decoding.candidates import best_candidates, gather_beams
from flax_transformer.decoding.loop import Setting, State
from flax_transformer.decoding.offers import Offer
from flax_transformer.decoding.scoring import Scoring


def lengthen_groups(
    made: Offer, scoring: Scoring, setting: Setting, state: State, *, groups: int, strength: float
) -> tuple[State, Array]:
    """Lengthens one group after the other; each is a beam search of its own, w / `groups` wide.

    Where a group chooses, a token's log probability counts `strength` less for each live hypothesis
    of the groups before it that has the token at the same position (their equation 5, with Hamming
    diversity). Scores are without it. A group that is done holds no other off any more.
    """
    b, w, v = made.logits.shape
    size = w // groups
    taken = jnp.zeros((b, v), jnp.float32)
    parts, parents = [], []
    for first in range(0, w, size):
        beams = slice(first, first + size)
        offered, part = made.of_beams(beams), _of_beams(state, beams)
        selection = _select(offered, strength * taken, setting, part)
        part, parent = settle(selection, offered, scoring, setting, part)
        taken += _count(part, v)
        parts.append(part)
        parents.append(parent + first)
    return _join(parts), jnp.concatenate(parents, axis=1)


def _select(made: Offer, penalty: Array, setting: Setting, state: State) -> Selection:
    """Returns the best candidates after a `penalty` (b,v), with their log probabilities without."""
    # What is forced is not compared with anything.
    penalty = jnp.where(made.is_forced(setting.pad_id)[:, None], 0.0, penalty)
    candidates = best_candidates(
        made.logits,
        state.live_log_probs,
        made.must_end,
        made.forced,
        made.may_follow - penalty[:, None, :],
        bos_id=setting.bos_id,
        eos_id=setting.eos_id,
        pad_id=setting.pad_id,
    )
    ends, size = candidates.tokens == setting.eos_id, state.live_log_probs.shape[1]
    _, chosen = lax.top_k(jnp.where(ends, -jnp.inf, candidates.log_probs), size)
    log_probs = candidates.log_probs + jnp.take_along_axis(penalty, candidates.tokens, axis=1)
    candidates = candidates._replace(log_probs=log_probs)
    continuing = gather_beams(jnp.where(ends, -jnp.inf, log_probs), chosen)
    live_log_probs, order = lax.top_k(continuing, size)
    return Selection(candidates, live_log_probs, gather_beams(chosen, order))


def _count(state: State, v: int) -> Array:
    """Returns how many live hypotheses have just got each token: (b,v) float32."""
    is_live = (state.live_log_probs > -jnp.inf).astype(jnp.float32)
    return jax.vmap(lambda ids, live: jnp.zeros(v).at[ids].add(live))(state.last_ids, is_live)


_OF_ALL = ("position", "cache")


def _of_beams(state: State, beams: slice) -> State:
    own = {name: value for name, value in state._asdict().items() if name not in _OF_ALL}
    return state._replace(**jax.tree.map(lambda array: array[:, beams], own))


def _join(parts: list[State]) -> State:
    own = [
        {name: value for name, value in part._asdict().items() if name not in _OF_ALL}
        for part in parts
    ]
    joined = jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=1), *own)
    return parts[0]._replace(**joined)
