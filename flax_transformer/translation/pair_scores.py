"""How probable a model finds translations that it is given, token by token.

Letters: b batch, s source length, t target length, v vocabulary.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.data.packing import lay_out
from flax_transformer.data.token_cache import TokenizedPairs
from flax_transformer.decoding.lengths import longest_source, longest_target
from flax_transformer.errors import UserError
from flax_transformer.parallel.rows import place_rows
from flax_transformer.parallel.sharding import on_mesh, replicated
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.translation.batching import most_rows
from flax_transformer.translation.long_lines import mark_pair

_SHORTEST = 16


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


def token_log_probabilities(model: nn.Module, params: Any, batch: Batch) -> jax.Array:
    """Returns the natural logarithm of the probability of `batch.target_outputs`: (b,t) float32.

    One row's logits (t,v) are there at a time.
    """
    features: Any = model.apply({"params": params}, batch)  # btd

    def of_row(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        one, outputs = row
        logits: Any = model.apply({"params": params}, one[None], method="logits")
        found = jnp.take_along_axis(logits[0], outputs[:, None], axis=1)[:, 0]
        return found - jax.nn.logsumexp(logits[0], axis=1)

    return jax.lax.map(of_row, (features, batch.target_outputs))


class PairScorer:
    """Scores pairs in batches of few shapes, each of which is compiled once."""

    def __init__(self, model: nn.Module, config: Config, tokenizer: Tokenizer, mesh: Mesh):
        self._config, self._tokenizer, self._mesh = config, tokenizer, mesh
        score = on_mesh(mesh, partial(token_log_probabilities, model))
        # Every process gets all results.
        self._score = jax.jit(score, out_shardings=replicated(mesh))

    def score(
        self,
        params: Any,
        sources: Sequence[str],
        targets: Sequence[str],
        progress: str | None = None,
    ) -> list[PairScore]:
        """Returns the score of each pair, in order.

        params:   of the model, unboxed
        progress: names a bar on stderr

        A pair is not cut, however long it is. Raises `UserError` where one is too long for the
        positions that the model has learned.
        """
        marked = [mark_pair(*pair, self._tokenizer) for pair in zip(sources, targets, strict=True)]
        sides = (self._tokenizer, self._tokenizer.target)
        ids = [side.encode([pair[i] for pair in marked]) for i, side in enumerate(sides)]
        pairs = TokenizedPairs.of(*ids)
        self._require_positions(pairs)
        found: list[PairScore] = [PairScore((), ())] * len(marked)
        with tqdm(
            total=len(marked), desc=progress, leave=False, disable=None if progress else True
        ) as bar:
            for members, batch in self._batches(pairs):
                scores = jax.device_get(self._score(params, batch))
                for row, index in enumerate(members):
                    target = pairs.target[index].tolist()
                    pieces = self._tokenizer.target.pieces(target)
                    found[index] = PairScore(
                        tuple(pieces), tuple(scores[row][: len(target)].tolist())
                    )
                bar.update(len(members))
        return found

    def _batches(self, pairs: TokenizedPairs) -> Iterator[tuple[list[int], Batch]]:
        """Yields the numbers of pairs, the longest first, and a batch with each in a row."""
        lengths = np.maximum(pairs.source.lengths, pairs.target.lengths)
        order, start = np.argsort(-lengths, kind="stable"), 0
        while start < len(order):
            length = max(1 << (int(lengths[order[start]]) - 1).bit_length(), _SHORTEST)
            many = most_rows(self._config, length, self._mesh.size)
            members = order[start : start + many]
            rows = np.split(members, range(1, many))
            yield (
                members.tolist(),
                place_rows(self._mesh, many, lay_out(pairs, rows, length, length)),
            )
            start += many

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
