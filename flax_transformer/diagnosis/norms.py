"""How large gradients, parameters and updates are, for every module of every layer."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_LAYERS = "l"  # the logical axis along which equal layers are stacked


class Norms(NamedTuple):
    """Trees like the parameters, of Euclidean norms: () each or, of stacked layers, (l,)."""

    gradients: Any
    params: Any
    updates: Any


def norms(tree: Any, axes: Any) -> Any:
    """Returns the norm of every array of `tree`, () float32; of stacked layers one each, (l,).

    axes: the logical names of each parameter's axes (see `parameter_axes`)
    """

    def norm(array: jax.Array, names: Any) -> jax.Array:
        stacked = bool(names) and names[0] == _LAYERS
        squares = jnp.square(array.astype(jnp.float32))
        return jnp.sqrt(squares.sum(axis=tuple(range(1 if stacked else 0, array.ndim))))

    return jax.tree.map(norm, tree, axes)


@dataclass
class ModuleNorms:
    """One module of one layer, all its parameters together; norms are Euclidean."""

    name: str
    """Such as "decoder layer 1: cross_attention"; layers count from 1."""
    parameters: int = 0
    """How many numbers are trained."""
    gradient: float = 0.0
    """Before clipping."""
    parameter: float = 0.0
    update: float = 0.0
    """Of what the optimizer would add to the parameters now."""
    without_gradient: list[str] = field(default_factory=list)
    """Parameters whose gradient is exactly zero everywhere."""
    not_finite: list[str] = field(default_factory=list)
    """Parameters that are NaN or infinite themselves, or whose gradient is."""

    @property
    def ratio(self) -> float:
        """Norm of the update divided by that of the parameters."""
        return self.update / self.parameter if self.parameter else 0.0

    @property
    def typical_gradient(self) -> float:
        """The root mean square of the gradient's numbers, which compares modules of any size."""
        return self.gradient / math.sqrt(self.parameters)

    def add(self, other: "ModuleNorms") -> None:
        """Adds the figures of what belongs to it: a parameter, or a module."""
        self.parameters += other.parameters
        self.gradient = math.hypot(self.gradient, other.gradient)
        self.parameter = math.hypot(self.parameter, other.parameter)
        self.update = math.hypot(self.update, other.update)
        self.without_gradient += other.without_gradient
        self.not_finite += other.not_finite


def by_module(found: Norms, params: Any) -> list[ModuleNorms]:
    """Puts `found`, on the host, together for every module of every layer.

    params: the arrays themselves, or their descriptions
    """
    parts = []
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, array), *values in zip(leaves, *map(jax.tree.leaves, found), strict=True):
        first, *rest = [key.key for key in path]
        layers = list(zip(*(np.atleast_1d(value).tolist() for value in values), strict=True))
        for layer, (gradient, norm, update) in enumerate(layers, start=1):
            place = f"{first} layer {layer}" if np.ndim(values[0]) else first
            # A parameter that is in no module of its own goes by its own name.
            module, full_name = f"{place}: {rest[0]}", f"{place}: {'.'.join(rest)}"
            part = ModuleNorms(module, array.size // len(layers), gradient, norm, update)
            if gradient == 0:
                part.without_gradient.append(full_name)
            if not np.isfinite([gradient, norm]).all():
                part.not_finite.append(full_name)
            parts.append(((first, layer), part))
    modules: dict[str, ModuleNorms] = {}
    for _, part in sorted(parts, key=lambda placed: placed[0]):
        modules.setdefault(part.name, ModuleNorms(part.name)).add(part)
    return list(modules.values())


def together(modules: Iterable[ModuleNorms]) -> ModuleNorms:
    """Returns all `modules` as one."""
    whole = ModuleNorms("all")
    for module in modules:
        whole.add(module)
    return whole
