"""Loops over positions whose weights get their gradients in one product each.

Left to itself, differentiation adds to every weight's gradient at every step of the loop: as many
small products, and as many passes over the whole gradient, as there are positions. Here the
backward loop only collects the gradients of the products' results, and one product over all
positions makes the weight's gradient of them (Appleyard et al. 2016, section 3.3).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flax_transformer.models.contraction import contract

Multiply = Callable[[str, jax.Array], jax.Array]
"""(name of a weight, x) -> the product of both in float32."""

Weights = Mapping[str, jax.Array]


class Loop(NamedTuple):
    """How a loop over positions goes; hashable."""

    products: tuple[tuple[str, str], ...]
    """(name of a weight, subscripts of x and the weight), each used once a step."""
    dtype: Any
    """Of the products' operands."""
    unroll: int = 1
    """Steps compiled into one turn of the loop."""
    reverse: bool = False
    """Whether to begin at the last position."""


def multiplier(products: Mapping[str, str], weights: Weights, dtype) -> Multiply:
    """The products of `weights` outside of any loop."""
    return lambda name, x: contract(products[name], x, weights[name], dtype, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def scan_over_time(step, loop: Loop, weights: Weights, constants, start, inputs):
    """`lax.scan` of step(multiply, constants, carry, x) -> (carry, y), over axis 0 of `inputs`.

    `step` reads `weights` through `multiply` only, and closes over no array. Returns the last carry
    and the stacked y.
    """
    weights = _cast(weights, loop)
    multiply = multiplier(dict(loop.products), weights, loop.dtype)

    def turn(carry, x):
        return step(multiply, constants, carry, x)

    return jax.lax.scan(turn, start, inputs, reverse=loop.reverse, unroll=loop.unroll)


def _cast(weights: Weights, loop: Loop) -> Weights:
    """Once, not at every step."""
    return {name: weight.astype(loop.dtype) for name, weight in weights.items()}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _times(subscripts: str, dtype, x: jax.Array, weight: jax.Array) -> jax.Array:
    """A product that passes its gradient on to `x` alone, and remembers nothing of it."""
    return contract(subscripts, x, weight, dtype, jnp.float32)


def _times_backward(subscripts, dtype, weight, gradient):
    operands, result = subscripts.split("->")
    x_letters, letters = operands.split(",")
    return contract(f"{result},{letters}->{x_letters}", gradient, weight, dtype, jnp.float32), None


_times.defvjp(
    lambda subscripts, dtype, x, weight: (_times(subscripts, dtype, x, weight), weight),
    _times_backward,
)


def _forward(step, loop: Loop, weights: Weights, constants, start, inputs):
    types = {name: jnp.zeros((0,), weight.dtype) for name, weight in weights.items()}
    weights, subscripts = _cast(weights, loop), dict(loop.products)

    def take_step(constants, carry, x, taps):
        """One step; also the left operands and the results of all products."""
        factors, results = {}, {}

        def multiply(name: str, x: jax.Array) -> jax.Array:
            factors[name] = x.astype(loop.dtype)
            results[name] = _times(subscripts[name], loop.dtype, x, weights[name])
            # Nothing is added; the gradient of the tap is that of the result.
            return results[name] + taps[name] if taps else results[name]

        carry, y = step(multiply, constants, carry, x)
        return carry, y, factors, results

    def scan(constants, start, inputs, taps):
        def turn(carry, x):
            carry, y, factors, _ = take_step(constants, carry, *x)
            return carry, (y, factors)

        carry, (ys, factors) = jax.lax.scan(
            turn, start, (inputs, taps), reverse=loop.reverse, unroll=loop.unroll
        )
        return (carry, ys), factors

    first = jax.tree.map(lambda x: x[0], inputs)
    shapes = jax.eval_shape(take_step, constants, start, first, None)[3]
    length = len(jax.tree.leaves(inputs)[0])
    taps = {name: jnp.zeros((length, *x.shape), x.dtype) for name, x in shapes.items()}
    result, pull_back, factors = jax.vjp(scan, constants, start, inputs, taps, has_aux=True)
    return result, (pull_back, factors, types)


def _backward(step, loop: Loop, saved, gradient):
    pull_back, factors, types = saved
    *others, taps = pull_back(gradient)
    weights = {}
    for name, subscripts in loop.products:
        operands, result = subscripts.split("->")
        x_letters, letters = operands.split(",")
        all_steps = f"t{x_letters},t{result}->{letters}"
        of_weight = contract(all_steps, factors[name], taps[name], loop.dtype, jnp.float32)
        weights[name] = of_weight.astype(types[name].dtype)
    return (weights, *others)


scan_over_time.defvjp(_forward, _backward)
