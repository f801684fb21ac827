"""The rows of a batch: which of them a process makes, and how they come to lie over the devices."""

import math
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from flax_transformer.config import Config
from flax_transformer.errors import UserError
from flax_transformer.parallel.sharding import BATCH_AXES, batch_sharding

Rows = TypeVar("Rows")
"""Any tree of arrays (b,...)."""


def own_rows(mesh: Mesh, rows: int) -> slice:
    """Returns which of a batch's `rows` this process' devices hold, from first to last."""
    places = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    bounds = [place[0].indices(rows) for place in places if place is not None]
    return slice(min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds))


def place_rows(mesh: Mesh, rows: int, own: Rows) -> Rows:
    """Returns a batch of `rows` over the devices; `own` is what this process made: `own_rows`."""
    sharding = batch_sharding(mesh)
    first = own_rows(mesh, rows).start

    def place(array: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(rows)
            return array[start - first : stop - first]

        return jax.make_array_from_callback((rows, *array.shape[1:]), sharding, part)

    return jax.tree.map(place, own)


def check_rows(config: Config, mesh: Mesh) -> None:
    """Raises `UserError` unless every device gets the same number of rows in every step."""
    devices = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    parts = devices * config.training.accumulation_steps
    if config.batch.rows % parts:
        raise UserError(
            f"batch.rows is {config.batch.rows}, but must be a multiple of {parts}: "
            f"{devices} devices along {' and '.join(BATCH_AXES)} times "
            f"training.accumulation_steps {config.training.accumulation_steps}"
        )
