"""What hypotheses must begin with.

Letters: b batch, w beam width, v vocabulary, p prefix length.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax


class Prefix(NamedTuple):
    """The beginning of the hypotheses of each sentence: tokens, then a word in whatever pieces.

    tokens: (b,p) int32, p at least 1, then PAD
    nexts:  (b,places,v) int8, where in the word a token leads from each place in it; -1 where it
            may not stand. The word begins at place 1, where any may, and is behind at place 0, from
            where every token leads to 0.
    """

    tokens: Array | np.ndarray
    nexts: Array | np.ndarray

    def start(self, w: int) -> Array:
        """Returns the places (b,w) of hypotheses that have no token: 0 where there is no word."""
        has_word = (self.nexts[:, 1] >= 0).any(axis=1)
        return jnp.repeat(has_word.astype(jnp.int32)[:, None], w, axis=1)

    def forced(self, position: Array, pad_id: int) -> Array:
        """Returns the tokens (b,) that must stand at `position` (); PAD where others may."""
        p = self.tokens.shape[1]
        now = lax.dynamic_index_in_dim(
            self.tokens, jnp.minimum(position, p - 1), axis=1, keepdims=False
        )
        return jnp.where(position < p, now, pad_id)

    def leads(self, places: Array) -> Array:
        """Returns where each token leads (b,w,v) from the `places` (b,w) of live hypotheses."""
        return jnp.take_along_axis(self.nexts, places[:, :, None], axis=1)
