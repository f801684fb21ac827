"""Whole pairs through a model, in batches of few shapes.

Letters: b batch, t target length.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.data.packing import lay_out
from flax_transformer.data.token_cache import TokenizedPairs
from flax_transformer.parallel.rows import place_rows
from flax_transformer.parallel.sharding import on_mesh, replicated
from flax_transformer.translation.batching import most_rows

_SHORTEST = 16


class PairFunction:
    """A function of (params, batch) that has a number for every target token, compiled once for
    each shape of a batch."""

    def __init__(
        self, of_batch: Callable[[Any, Batch], jax.Array], config: Config, mesh: Mesh
    ) -> None:
        """of_batch: gives (b,t), for a batch with one pair in a row."""
        self._config, self._mesh = config, mesh
        # Every process gets all results.
        self._of_batch = jax.jit(on_mesh(mesh, of_batch), out_shardings=replicated(mesh))

    def __call__(
        self, params: Any, pairs: TokenizedPairs, progress: str | None = None
    ) -> list[np.ndarray]:
        """Returns the numbers (t,) of each pair, in order.

        params:   of the model, unboxed
        progress: names a bar on stderr
        """
        count = len(pairs)
        found: list[np.ndarray] = [np.zeros(0)] * count
        with tqdm(
            total=count, desc=progress, leave=False, disable=None if progress else True
        ) as bar:
            for members, batch in self._batches(pairs):
                rows = jax.device_get(self._of_batch(params, batch))
                for row, index in zip(rows, members, strict=False):
                    found[index] = row[: pairs.target.lengths[index]]
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
