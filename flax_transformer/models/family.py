"""What training, search and evaluation ask of a model, whatever it is.

Letters: b batch, w beam width, s source, t target, d width, v vocabulary.
"""

from typing import Any, Protocol

import jax

from flax_transformer.batch import Batch
from flax_transformer.config import RecurrentConfig, TransformerConfig

Memory = Any
"""What a decoder learns of the source; each family has its own."""

Cache = Any
"""The state of a decoder in the middle of its target: a tree of arrays (1,b,w,...), or (1,b,1,...)
where all beams share them, so that a search can move hypotheses without knowing what it moves."""

STEP_WEIGHTS = "step_weights"
"""The collection in which `decode_step` finds what `step_weights` returned, if it is given it."""


class Family(Protocol):
    """The questions that every family of models answers, as methods of a Flax module.

    What else a model wants minimised, beside the loss of its features, it sows into "losses".
    """

    config: TransformerConfig | RecurrentConfig
    vocabulary_size: int

    def __call__(self, batch: Batch) -> jax.Array:
        """Features (b,t,d) at every target position of a packed batch, fed the true target."""
        ...

    def encode(self, ids: jax.Array, segments: jax.Array, positions: jax.Array) -> Memory:
        """What the source says; all (b,s)."""
        ...

    def decode(
        self,
        ids: jax.Array,
        segments: jax.Array,
        positions: jax.Array,
        memory: Memory,
        source_segments: jax.Array,
    ) -> jax.Array:
        """Features (b,t,d) of target inputs (b,t); position t sees those up to t."""
        ...

    def output_table(self) -> jax.Array:
        """The matrix (v,d) whose product with features gives logits."""
        ...

    def logits(self, features: jax.Array) -> jax.Array:
        """Scores (b,t,v) in float32 of every token, before the softmax, of features (b,t,d)."""
        ...

    def start_cache(
        self, memory: Memory, source_segments: jax.Array, max_steps: int, beam_size: int
    ) -> Cache:
        """The state before the first position of w beams, with room for `max_steps` positions."""
        ...

    def grow_cache(self, cache: Cache, max_steps: int) -> Cache:
        """The same state with room for `max_steps` positions."""
        ...

    def step_weights(self) -> dict[str, Any]:
        """What steps need of the parameters, prepared once for a whole search; `decode_step` does
        without, by preparing it at every step."""
        ...

    def decode_step(
        self, ids: jax.Array, position: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Logits (b,w,v) of the token after `ids` (b,w) at `position` (), and the next state."""
        ...

    def decode_step_with_attention(
        self, ids: jax.Array, position: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache, jax.Array]:
        """As `decode_step`, and the attention (b,w,s) to the source, which sums to one.

        Raises `UserError` for a model without attention.
        """
        ...
