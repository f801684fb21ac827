"""How probable a model finds translations that it is given, token by token.

Letters: b batch, s source length, t target length, v vocabulary.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.data.token_cache import TokenizedPairs
from flax_transformer.decoding.lengths import longest_source, longest_target
from flax_transformer.errors import UserError
from flax_transformer.models.ensemble import Ensemble
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.translation.long_lines import mark_pair
from flax_transformer.translation.pair_batches import PairFunction
from flax_transformer.translation.prefixes import require_tag


class PairScore(NamedTuple):
    """How probable one translation is.

    tokens:            pieces of the target, the end symbol "</s>" last
    log_probabilities: natural logarithm of each token's probability, after the source and the
                       tokens before it
    """

    tokens: tuple[str, ...]
    log_probabilities: tuple[float, ...]

    @property
    def total(self) -> float:
        """The log probability of the whole target: of the sequence, not over its length."""
        return sum(self.log_probabilities)


def token_log_probabilities(model: nn.Module | Ensemble, params: Any, batch: Batch) -> jax.Array:
    """Returns the natural logarithm of the probability of `batch.target_outputs`: (b,t) float32.

    One row's logits (t,v) are there at a time.
    """
    features: Any = model.apply({"params": params}, batch)  # btd, of an ensemble one of each

    def of_row(row: tuple[Any, jax.Array]) -> jax.Array:
        one, outputs = row
        one = jax.tree.map(lambda own: own[None], one)
        logits: Any = model.apply({"params": params}, one, method="logits")
        found = jnp.take_along_axis(logits[0], outputs[:, None], axis=1)[:, 0]
        return found - jax.nn.logsumexp(logits[0], axis=1)

    return jax.lax.map(of_row, (features, batch.target_outputs))


class PairScorer:
    """Scores pairs in batches of few shapes, each of which is compiled once."""

    def __init__(
        self, model: nn.Module | Ensemble, config: Config, tokenizer: Tokenizer, mesh: Mesh
    ):
        self._config, self._tokenizer = config, tokenizer
        self._score = PairFunction(partial(token_log_probabilities, model), config, mesh)

    def score(
        self,
        params: Any,
        sources: Sequence[str],
        targets: Sequence[str],
        tags: Sequence[str] | None = None,
        progress: str | None = None,
    ) -> list[PairScore]:
        """Returns the score of each pair, in order.

        params:   of the model, unboxed
        tags:     a symbol of the vocabulary before each source, "" for none
        progress: names a bar on stderr

        A pair is not cut, however long it is. Raises `UserError` where one is too long for the
        positions that the model has learned, and for a tag that the vocabulary lacks.
        """
        marked = [mark_pair(*pair, self._tokenizer) for pair in zip(sources, targets, strict=True)]
        sides = (self._tokenizer, self._tokenizer.target)
        ids = [side.encode([pair[i] for pair in marked]) for i, side in enumerate(sides)]
        for place, tag in enumerate(tags or ()):
            if tag:
                ids[0][place].insert(0, require_tag(tag, self._tokenizer))
        pairs = TokenizedPairs.of(*ids)
        self._require_positions(pairs)
        return self.score_ids(params, pairs, progress)

    def score_ids(
        self, params: Any, pairs: TokenizedPairs, progress: str | None = None
    ) -> list[PairScore]:
        """As `score`, of pairs that are ids already, such as those of a search."""
        found = self._score(params, pairs, progress)
        targets = (pairs.target[i].tolist() for i in range(len(pairs)))
        return [
            PairScore(tuple(self._tokenizer.target.pieces(target)), tuple(scores.tolist()))
            for target, scores in zip(targets, found, strict=True)
        ]

    def _require_positions(self, pairs: TokenizedPairs) -> None:
        if not self._config.model.learns_positions:
            return
        longest = longest_source(self._config)
        for name, side, most in (
            ("source", pairs.source, longest),
            ("target", pairs.target, longest_target(self._config, longest)),
        ):
            long = np.flatnonzero(side.lengths > most)
            if len(long):
                count = side.lengths[long[0]]
                raise UserError(
                    f"{name} {long[0] + 1} has {count} tokens with its end symbol, but training "
                    f"has seen positions for {most}: divide it"
                )
