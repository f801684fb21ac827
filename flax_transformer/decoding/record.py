"""How a beam search came to its hypotheses, position by position.

Letters: b batch, w beam width, t target length, n = 2w candidates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from flax_transformer.decoding.candidates import Candidates


class Record(NamedTuple):
    """The candidates of every position, the most probable first, and what became of them.

    parents:   (b,t,n) int32, the live hypothesis that each lengthens, by its place in `survivors`
               of the position before
    tokens:    (b,t,n) int32
    log_probs: (b,t,n) float32; -inf where there is no candidate, as once a sentence is done
    scores:    (b,t,n) float32, what each would be compared by if it ended here
    finished:  (b,t,w) bool, which of the first w are finished hypotheses
    survivors: (b,t,w) int32, the candidates that stay live; -1 where there is none
    """

    parents: Array
    tokens: Array
    log_probs: Array
    scores: Array
    finished: Array
    survivors: Array

    def add(
        self,
        position: Array,
        candidates: Candidates,
        scores: Array,
        finished: Array,
        survivors: Array,
    ) -> "Record":
        """Returns the record with what happened at `position` ()."""
        now = Record(*candidates, scores, finished, survivors)
        return jax.tree.map(
            lambda before, new: lax.dynamic_update_index_in_dim(before, new, position, axis=1),
            self,
            now,
        )


def empty_record(b: int, w: int, t: int) -> Record:
    """Returns the record of a search that has not begun."""
    candidates = (b, t, 2 * w)
    return Record(
        parents=jnp.zeros(candidates, jnp.int32),
        tokens=jnp.zeros(candidates, jnp.int32),
        log_probs=jnp.full(candidates, -jnp.inf, jnp.float32),
        scores=jnp.full(candidates, -jnp.inf, jnp.float32),
        finished=jnp.zeros((b, t, w), bool),
        survivors=jnp.full((b, t, w), -1, jnp.int32),
    )
