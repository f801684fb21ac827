"""What the live hypotheses may be lengthened by at a position.

Letters: b batch, w beam width, v vocabulary, n chosen tokens.
"""

from typing import NamedTuple

import chex
import jax.numpy as jnp
from jax import Array

from flax_transformer.decoding.candidates import gather_beams, gather_tokens
from flax_transformer.decoding.loop import Setting, State


class Offer(NamedTuple):
    """The tokens that may follow, with their logits.

    logits:   (b,w,v) of all tokens, whose probabilities count
    offered:  (b,w,v), the same with -inf where a token may not follow; None where any may in all
    must_end: (b,) bool, the sentences whose hypotheses have EOS as their only continuation
    forced:   (b,) int32, the only continuation of the others; PAD where there are more; None where
              nothing is forced in all
    leads:    (b,w,v) int8, to which place of a forced word each token leads; None where there is
              no prefix
    """

    logits: Array
    offered: Array | None
    must_end: Array
    forced: Array | None = None
    leads: Array | None = None

    def of_beams(self, beams: slice) -> "Offer":
        """Returns the offer to some of the w hypotheses."""
        offered = None if self.offered is None else self.offered[:, beams]
        leads = None if self.leads is None else self.leads[:, beams]
        return self._replace(logits=self.logits[:, beams], offered=offered, leads=leads)

    @property
    def may_follow(self) -> Array:
        """The logits (b,w,v), with -inf where a token may not follow if nothing is forced."""
        return self.logits if self.offered is None else self.offered

    def is_forced(self, pad_id: int) -> Array:
        """Returns the sentences (b,) whose hypotheses have `forced` as their only continuation."""
        if self.forced is None:
            return jnp.zeros_like(self.must_end)
        return ~self.must_end & (self.forced != pad_id)

    def places_after(
        self, state: State, parents: Array, tokens: Array, pad_id: int
    ) -> Array | None:
        """Returns where in their word hypotheses are (b,n), once `tokens` (b,n) lengthen `parents`
        (b,n)."""
        if self.leads is None or self.forced is None or state.places is None:
            return None
        return jnp.where(
            (self.forced != pad_id)[:, None],
            gather_beams(state.places, parents),
            gather_tokens(self.leads, parents, tokens).astype(jnp.int32),
        )


def offer(logits: Array, setting: Setting, state: State) -> Offer:
    """Returns what may follow at `state.position`, where the model gives `logits` (b,w,v)."""
    chex.assert_shape(logits, (*state.live_log_probs.shape, None))
    chex.assert_type(logits, jnp.float32)
    must_end = state.position + 1 >= setting.sentences.max_lengths
    offered, forced, leads = None, None, None
    for rule in setting.rules:
        offered = rule(
            logits if offered is None else offered, state.live_ids, state.position, must_end
        )
    prefix = setting.sentences.prefix
    if prefix is not None and state.places is not None:
        forced = prefix.forced(state.position, setting.pad_id)
        leads = prefix.leads(state.places)
        offered = jnp.where(leads >= 0, logits if offered is None else offered, -jnp.inf)
    return Offer(logits, offered, must_end, forced, leads)


def only_offered(made: Offer, setting: Setting) -> Array:
    """Returns the logits (b,w,v) with -inf wherever a token may not follow, whatever the reason."""
    v = made.logits.shape[2]
    tokens = jnp.arange(v, dtype=jnp.int32)[None, :]
    specials = (tokens == setting.bos_id) | (tokens == setting.pad_id)
    allowed = ~specials & (~made.must_end[:, None] | (tokens == setting.eos_id))  # bv
    offered = jnp.where(allowed[:, None, :], made.may_follow, -jnp.inf)
    if made.forced is None:
        return offered
    only_it = jnp.where((tokens == made.forced[:, None])[:, None, :], made.logits, -jnp.inf)
    return jnp.where(made.is_forced(setting.pad_id)[:, None, None], only_it, offered)
