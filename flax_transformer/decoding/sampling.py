"""Sampling instead of searching: each token is drawn from the probabilities of the model.

Letters: b batch, w samples of a sentence, t target length, v vocabulary.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flax_transformer.decoding.candidates import largest_logits
from flax_transformer.decoding.hypotheses import Hypotheses, no_hypotheses
from flax_transformer.decoding.loop import Cache, Grow, Sentences, Setting, State, Step, run, start
from flax_transformer.decoding.offers import offer, only_offered
from flax_transformer.decoding.prefix import Prefix
from flax_transformer.decoding.rules import Rule

_FACTOR = 0x9E3779B1

_WIDTH = 100.0
"""Tokens whose logit over the temperature is so far below the largest have no probability."""

_HALVINGS = 34
"""Of `_WIDTH`: what is left is less than the rounding of a logit."""


class Sampler(NamedTuple):
    """What tokens are drawn from: the model's probabilities, sharpened, then cut.

    temperature: divides the logits; below 1 the probable tokens become more probable
    top_k:       so many of the most probable tokens may be drawn; 0 is all
    top_p:       of these, the fewest of the most probable that have this share of their probability
                 (the nucleus of Holtzman et al. 2020); 1 is all
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def cut(self, logits: Array) -> Array:
        """Returns `logits` (b,w,v) with -inf for tokens that are not drawn.

        Of tokens as probable as the last one that may be drawn, all may.
        """
        if 0 < self.top_k < logits.shape[2]:
            largest, _ = largest_logits(logits, self.top_k)
            logits = jnp.where(logits >= largest[:, :, -1:], logits, -jnp.inf)
        return logits if self.top_p >= 1 else self._nucleus(logits)

    def _nucleus(self, logits: Array) -> Array:
        """Returns `logits` with -inf where the more probable tokens have `top_p` already.

        The least logit of the nucleus is searched for by halving: on CPUs sorting the vocabulary
        would take many times as long.
        """
        largest = logits.max(axis=2, keepdims=True)
        weights = jnp.exp((logits - largest) / self.temperature)
        enough = self.top_p * weights.sum(axis=2, keepdims=True)

        def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            """Keeps the lower bound where the tokens above it have enough, and the upper where
            those above it have not."""
            low, high = bounds
            middle = (low + high) / 2
            above = jnp.where(logits > middle, weights, 0.0).sum(axis=2, keepdims=True)
            return jnp.where(above >= enough, middle, low), jnp.where(above >= enough, high, middle)

        bounds = largest - _WIDTH * self.temperature, largest
        low, _ = lax.fori_loop(0, _HALVINGS, halve, bounds)
        # Where the bounds are closer than numbers can be, the most probable token is left.
        return jnp.where((logits > low) | (logits == largest), logits, -jnp.inf)

    def draw(self, keys: Array, logits: Array) -> Array:
        """Returns a token for each key: `keys` (b,w) and `logits` (b,w,v) give (b,w) int32."""
        v = logits.shape[2]
        noise = jax.vmap(jax.vmap(lambda key: jax.random.gumbel(key, (v,))))(keys)
        # The maximum of logits and Gumbel noise is a draw from their softmax. The noise is scaled
        # rather than the logits, which a temperature near 0 would take out of range.
        chosen = jnp.argmax(self.cut(logits) + self.temperature * noise, axis=2)
        return chosen.astype(jnp.int32)


def number_sentences(ids: Array) -> Array:
    """Returns a number (b,) uint32 for each sentence of `ids` (b,s), which PAD = 0 follows.

    It depends on the tokens alone: not on how the batch is padded, nor on what else is in it.
    """
    powers = jnp.cumprod(jnp.full(ids.shape[1], _FACTOR, jnp.uint32))
    return (ids.astype(jnp.uint32) * powers[None]).sum(axis=1, dtype=jnp.uint32)


def sample(
    step: Step,
    cache: Cache,
    max_lengths: Array,
    numbers: Array,
    *,
    sampler: Sampler,
    seed: int,
    max_steps: int,
    num_samples: int,
    bos_id: int,
    eos_id: int,
    pad_id: int,
    grow: Grow | None = None,
    prefix: Prefix | None = None,
    rules: Sequence[Rule] = (),
) -> Hypotheses:
    """Draws w = `num_samples` continuations of BOS for each sentence, independently of each other.

    numbers: (b,) uint32; with the `seed` they decide what is drawn for a sentence, whatever else
             the batch holds. The first samples are the same, however many there are.

    The others are as in `beam_search`. PAD and BOS are never drawn, and at its longest a sample can
    only end. The samples are in the order of drawing, equal ones included. Their scores are natural
    logarithms of the probabilities that the model gives them, whatever they were drawn from.
    """
    (b,) = max_lengths.shape
    chex.assert_scalar_positive(num_samples)
    chex.assert_scalar_positive(sampler.temperature)
    chex.assert_shape(numbers, (b,))
    chex.assert_type(numbers, jnp.uint32)
    sentences = Sentences(jnp.minimum(max_lengths, max_steps), prefix, numbers)
    setting = Setting(sentences, rules, bos_id=bos_id, eos_id=eos_id, pad_id=pad_id)
    finished = no_hypotheses(b, num_samples, max_steps, pad_id, record=False)
    state = start(cache, setting, finished, exists=np.ones(num_samples, bool))
    return run(partial(_advance, step, sampler, seed), setting, state, max_steps, grow)


def _advance(step: Step, sampler: Sampler, seed: int, setting: Setting, state: State) -> State:
    w = state.live_log_probs.shape[1]
    logits, cache = step(state.last_ids, state.position, state.cache)
    made = offer(logits, setting, state)
    keys = _keys(seed, setting.sentences.numbers, w, state.position)
    offered = only_offered(made, setting)
    tokens = sampler.draw(keys, offered)
    # Where the rules leave nothing, what is drawn is -inf, and no hypothesis comes of the sample.
    drawn = jnp.take_along_axis(offered, tokens[:, :, None], axis=2)[:, :, 0]
    log_probs = state.live_log_probs + drawn - jax.nn.logsumexp(logits, axis=2)
    ids = lax.dynamic_update_index_in_dim(state.live_ids, tokens, state.position, axis=2)

    is_live, ends = state.live_log_probs > -jnp.inf, tokens == setting.eos_id
    ended = is_live & ends
    finished = state.finished._replace(
        ids=jnp.where(ended[:, :, None], ids, state.finished.ids),
        scores=jnp.where(ended, log_probs, state.finished.scores),
    )
    own = jnp.broadcast_to(jnp.arange(w)[None, :], tokens.shape)
    return state._replace(
        position=state.position + 1,
        last_ids=tokens,
        live_ids=ids,
        live_log_probs=jnp.where(ends, -jnp.inf, log_probs),
        finished=finished,
        places=made.places_after(state, own, tokens, setting.pad_id),
        cache=cache,
    )


def _keys(seed: int, numbers: Array, w: int, position: Array) -> Array:
    """Returns a key for each sample (b,w) at a position."""
    fold = jax.random.fold_in
    now = fold(jax.random.key(seed), position)
    of_sentences = jax.vmap(partial(fold, now))(numbers)
    each = jax.vmap(jax.vmap(fold, in_axes=(None, 0)), in_axes=(0, None))
    return each(of_sentences, jnp.arange(w))
