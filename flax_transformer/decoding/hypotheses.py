"""The hypotheses of a search that have ended.

Letters: b batch, w beam width, t target length.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from flax_transformer.decoding.candidates import gather_beams
from flax_transformer.decoding.record import Record, empty_record


class Hypotheses(NamedTuple):
    """The best w hypotheses of each sentence, best first.

    ids:    (b,w,t) int32, without BOS, ending in EOS, then PAD; all PAD where fewer than w exist
    scores: (b,w) float32, natural-log probability divided by the length penalty, plus the coverage
            penalty; -inf where none exists
    record: how they were found, where that was asked for
    """

    ids: Array
    scores: Array
    record: Record | None = None

    def merge(self, ids: Array, scores: Array) -> "Hypotheses":
        """Returns the best w of these and those; of equals these first: -inf never replaces -inf.

        ids, scores: of those, as above
        """
        w = self.scores.shape[1]
        scores, chosen = lax.top_k(jnp.concatenate([self.scores, scores], axis=1), w)
        ids = gather_beams(jnp.concatenate([self.ids, ids], axis=1), chosen)
        return self._replace(ids=ids, scores=scores)

    def best_first(self) -> "Hypotheses":
        """Returns them in the order of their scores; of equals the first stays first."""
        scores, chosen = lax.top_k(self.scores, self.scores.shape[1])
        return self._replace(ids=gather_beams(self.ids, chosen), scores=scores)


def no_hypotheses(b: int, w: int, t: int, pad_id: int, *, record: bool) -> Hypotheses:
    """Returns room for w hypotheses of b sentences, and for a record if there is to be one."""
    return Hypotheses(
        ids=jnp.full((b, w, t), pad_id, jnp.int32),
        scores=jnp.full((b, w), -jnp.inf, jnp.float32),
        record=empty_record(b, w, t) if record else None,
    )
