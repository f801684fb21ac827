"""What hypotheses must not do: rules that take tokens from the choice, position by position.

A new rule is one more function here, and a line in `rules_of` of `translation/search.py`.

Letters: b batch, w beam width, t target length, v vocabulary, f phrases, p tokens of a phrase.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

Rule = Callable[[Array, Array, Array, Array], Array]
"""(logits (b,w,v), ids (b,w,t) so far, position () int32, must_end (b,) bool) -> the logits, with
-inf where a token may not stand at `position`.

Of a sentence that `must_end` the hypotheses have EOS as their only continuation, which no rule
takes away. Tokens that a prefix forces are not asked about."""


def minimum_length(
    logits: Array, ids: Array, position: Array, must_end: Array, *, least: int, eos_id: int
) -> Array:
    """Has no hypothesis end with fewer than `least` tokens, EOS included, if it may be as long."""
    too_short = (position + 1 < least) & ~must_end
    is_end = jnp.arange(logits.shape[2]) == eos_id
    return jnp.where(too_short[:, None, None] & is_end[None, None, :], -jnp.inf, logits)


def no_repeated_ngram(
    logits: Array, ids: Array, position: Array, must_end: Array, *, n: int
) -> Array:
    """Has no hypothesis hold the same `n` tokens in a row twice (Paulus et al. 2018)."""
    windows = ids.shape[2] - n + 1
    if windows < 1:
        return logits
    latest = lax.dynamic_slice_in_dim(ids, jnp.maximum(position - n + 1, 0), n - 1, axis=2)
    # Those that begin at each place and whose last token is there already.
    repeats = jnp.broadcast_to(jnp.arange(windows) + n <= position, (*ids.shape[:2], windows))
    for place in range(n - 1):
        repeats &= ids[:, :, place : place + windows] == latest[:, :, place, None]
    return _without(logits, repeats, ids[:, :, n - 1 :])


def forbid(
    logits: Array,
    ids: Array,
    position: Array,
    must_end: Array,
    *,
    phrases: Sequence[Sequence[int]],
    pad_id: int,
) -> Array:
    """Has no hypothesis hold one of `phrases`, each of one token or more: its last token may not
    follow the others."""
    before = max(map(len, phrases)) - 1
    padded_heads = [[pad_id] * (before - len(p) + 1) + [*p[:-1]] for p in phrases]
    heads = jnp.array(padded_heads, jnp.int32).reshape(1, 1, len(phrases), before)  # bwfp
    last = jnp.array([phrase[-1] for phrase in phrases], jnp.int32)
    padded = jnp.pad(ids, ((0, 0), (0, 0), (before, 0)), constant_values=pad_id)
    latest = lax.dynamic_slice_in_dim(padded, position, before, axis=2)
    completes = ((latest[:, :, None, :] == heads) | (heads == pad_id)).all(axis=3)
    return _without(logits, completes, jnp.broadcast_to(last, completes.shape))


def _without(logits: Array, which: Array, tokens: Array) -> Array:
    """Returns `logits` (b,w,v) with -inf for those of `tokens` (b,w,any) that `which` says."""
    nowhere = logits.shape[2]
    places = jnp.where(which, tokens, nowhere)

    def of_beam(row: Array, places: Array) -> Array:
        return row.at[places].set(-jnp.inf, mode="drop")

    return jax.vmap(jax.vmap(of_beam))(logits, places)
