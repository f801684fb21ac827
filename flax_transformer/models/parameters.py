"""How parameters start, and what names their axes have."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

projection_init = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform", 0, (1, 2))
"""Xavier's for queries, keys and values (d,h,k), with the fans of the one matrix of d x 3 (h k)
that they come from: each of the three starts with half the variance of a matrix of its own. With
all of it, attention starts sharp and learns far more slowly."""

output_init = nn.initializers.variance_scaling(1, "fan_avg", "uniform", (0, 1), 2)
"""Xavier's for (h,k,d), with the fans of the matrix of (h k) x d that it is."""


def with_axes(initializer: Callable[..., Any], letters: str) -> Callable[..., jax.Array]:
    """`initializer` for a parameter whose axes are `letters` of the legend, one each.

    The letters decide how the parameter is split over devices (see `sharding`).
    """
    boxed: Any = nn.with_logical_partitioning(initializer, tuple(letters))
    return boxed
