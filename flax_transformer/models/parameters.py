"""Parameters that know the names of their axes."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax


def named(initializer: Callable[..., Any], letters: str) -> Callable[..., jax.Array]:
    """`initializer` for a parameter whose axes are `letters` of the legend, one each.

    The letters decide how the parameter is split over devices (see `sharding`).
    """
    boxed: Any = nn.with_logical_partitioning(initializer, tuple(letters))
    return boxed
