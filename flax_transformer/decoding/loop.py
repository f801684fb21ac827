"""The loop of every search: position after position, until all sentences are done.

Letters: b batch, w beam width, s source length, t target length, v vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.prefix import Prefix
from flax_transformer.decoding.rules import Rule

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


class Sentences(NamedTuple):
    """What holds for each sentence during its whole search; every array begins with the axis b.

    max_lengths: (b,) int32, the longest hypothesis, EOS included
    prefix:      what its hypotheses begin with, where any must begin with something
    numbers:     (b,) uint32, by which its samples are drawn, where any are
    required:    (b,c,p) int32, the c phrases that its hypotheses hold, where any must hold some:
                 the tokens of each, then PAD
    """

    max_lengths: Array
    prefix: Prefix | None = None
    numbers: Any = None
    required: Any = None


class Setting(NamedTuple):
    """What holds during a whole search, of each sentence and of all."""

    sentences: Sentences
    rules: Sequence[Rule]
    bos_id: int
    eos_id: int
    pad_id: int


class State(NamedTuple):
    """What the loop carries. A sentence is done when none of its `live_log_probs` is finite."""

    position: Array
    last_ids: Array  # (b,w)
    live_ids: Array  # (b,w,t)
    live_log_probs: Array  # (b,w)
    finished: Hypotheses
    coverage: Array | None  # (b,w,s), attention so far, with a coverage penalty only
    places: Array | None  # (b,w), with a prefix only: where in its last word they are
    cache: Cache


Advance = Callable[[Setting, State], State]
"""Lengthens every live hypothesis by one token, and puts those that end among the finished."""


def start(
    cache: Cache,
    setting: Setting,
    finished: Hypotheses,
    exists: np.ndarray,
    coverage: Array | None = None,
) -> State:
    """Returns the state of a search that has not begun.

    finished: room for w hypotheses of each sentence
    exists:   (w,) bool, which of the w hypotheses without a token are there to be lengthened
    """
    b, w, _ = finished.ids.shape
    begins = (setting.sentences.max_lengths[:, None] > 0) & exists[None, :]
    prefix = setting.sentences.prefix
    return State(
        position=jnp.zeros((), jnp.int32),
        last_ids=jnp.full((b, w), setting.bos_id, jnp.int32),
        live_ids=finished.ids,
        live_log_probs=jnp.where(begins, 0.0, -jnp.inf).astype(jnp.float32),
        finished=finished,
        coverage=coverage,
        places=None if prefix is None else prefix.start(w),
        cache=cache,
    )


def run(
    advance: Advance, setting: Setting, state: State, max_steps: int, grow: Grow | None
) -> Hypotheses:
    """Searches until every sentence is done.

    grow: with it the state's cache has room for stages(max_steps)[0] positions and is given room
          for more when a sentence needs it; without it, for all
    """
    b, w = state.live_log_probs.shape
    chex.assert_shape(setting.sentences.max_lengths, (b,))
    chex.assert_type(setting.sentences.max_lengths, jnp.int32)
    chex.assert_scalar_positive(max_steps)
    prefix = setting.sentences.prefix
    if prefix is not None:
        chex.assert_shape([prefix.tokens, prefix.nexts], [(b, None), (b, None, None)])
    for leaf in jax.tree.leaves(state.cache):
        chex.assert_shape(leaf, (None, b, {1, w}, ...))
    if grow is None:
        return _finish(advance, setting, lambda cache, _: cache, state, [max_steps])
    return _finish(advance, setting, grow, state, stages(max_steps))


def _finish(
    advance: Advance, setting: Setting, grow: Grow, state: State, ends: Sequence[int]
) -> Hypotheses:
    """Searches until every sentence is done; the cache has room for the first of `ends`.

    Most sentences of a batch are done long before the last one. When all but a few are, these go
    on in a batch of their own.
    """
    few = len(setting.sentences.max_lengths) // _SHRINK
    if few < _FEWEST:
        few = 0

    def num_live(state: State) -> Array:
        return _is_live(state).sum()

    def search(state: State, ends: Sequence[int]) -> tuple[Hypotheses, Any]:
        """Searches until at most `few` are live; returns what is finished, their state and rows."""
        state = lax.while_loop(
            lambda s: (num_live(s) > few) & (s.position < ends[0]), partial(advance, setting), state
        )
        if len(ends) == 1:
            return leave(state)
        return lax.cond(
            num_live(state) > few,
            lambda s: search(s._replace(cache=grow(s.cache, ends[1])), ends[1:]),
            leave,
            state,
        )

    def leave(state: State) -> tuple[Hypotheses, Any]:
        if not few:
            return state.finished, None
        rows = jnp.argsort(~_is_live(state))[:few]
        chosen = _take_rows(state, rows)
        return state.finished, (chosen._replace(cache=grow(chosen.cache, ends[-1])), rows)

    finished, rest = search(state, ends)
    if not few:
        return finished
    rest, rows = rest
    rest_sentences = jax.tree.map(lambda array: array[rows], setting.sentences)
    rest_setting = setting._replace(sentences=rest_sentences)
    found = lax.cond(
        num_live(rest) > 0,
        lambda rest: _finish(advance, rest_setting, grow, rest, ends[-1:]),
        lambda rest: rest.finished,
        rest,
    )
    return jax.tree.map(lambda whole, part: whole.at[rows].set(part), finished, found)


def _is_live(state: State) -> Array:
    """Returns which sentences are not done: (b,) bool."""
    return (state.live_log_probs > -jnp.inf).any(axis=1)


def _take_rows(state: State, rows: Array) -> State:
    """Returns the state of some sentences alone."""
    cache = jax.tree.map(lambda leaf: leaf[:, rows], state.cache)
    kept = {"position": state.position, "cache": cache}
    others = {name: value for name, value in state._asdict().items() if name not in kept}
    return State(**kept, **jax.tree.map(lambda array: array[rows], others))
