"""Loops over positions whose weights get their gradients in one product each.

Left to itself, differentiation adds to every weight's gradient at every step of the loop: as many
small products, and as many passes over the whole gradient, as there are positions. Here the
backward loop only collects the gradients of the products' results, and one product over all
positions makes the weight's gradient from them (Appleyard et al. 2016, section 3.3).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flax_transformer.ops.einsum import einsum, einsum_reference

Multiply = Callable[[str, jax.Array], jax.Array]
"""(name of a weight, x) -> the product of both in float32."""

Weights = Mapping[str, jax.Array]


class Loop(NamedTuple):
    """How to loop over positions; hashable."""

    products: tuple[tuple[str, str], ...]
    """(name of a weight, subscripts of x and the weight), each used once per step."""
    dtype: Any
    """Type of the products' operands."""
    unroll: int = 1
    """Steps compiled into one turn of the loop."""
    reverse: bool = False
    """Whether to begin at the last position."""


def multiplier(
    products: Mapping[str, str], weights: Weights, einsum: Callable[..., jax.Array]
) -> Multiply:
    """Returns the products with `weights` outside of any loop, each by `einsum`."""
    return lambda name, x: einsum(products[name], x, weights[name], out_dtype=jnp.float32)


def scan_over_time_reference(
    step, loop: Loop, weights: Weights, addends: Weights, constants, start, inputs
):
    """Computes `scan_over_time` in plain lines."""
    return _scan(einsum_reference, step, loop, weights, addends, constants, start, inputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def scan_over_time(step, loop: Loop, weights: Weights, addends: Weights, constants, start, inputs):
    """Loops step(multiply, constants, carry, x) -> (carry, y) over axis 0 of `inputs`.

    Replaces (`scan_over_time_reference`):

        def turn(carry, inputs):
            addends, x = inputs
            multiply = lambda name, x: einsum(products[name], x, weights[name]) + addends[name]
            return step(multiply, constants, carry, x)

        jax.lax.scan(turn, start, (addends, inputs))

    step     reads `weights` through `multiply` only, and closes over no array
    addends  arrays (t,...) by the names of weights, which are added to the products
    results  the last carry, and y stacked
    """
    return _scan(einsum, step, loop, _cast(weights, loop), addends, constants, start, inputs)


def _scan(einsum, step, loop: Loop, weights, addends, constants, start, inputs):
    products = dict(loop.products)
    multiply_all = multiplier(products, weights, functools.partial(einsum, dtype=loop.dtype))

    def turn(carry, inputs):
        addends, x = inputs

        def multiply(name: str, x: jax.Array) -> jax.Array:
            result = multiply_all(name, x)
            return result + addends[name] if name in addends else result

        return step(multiply, constants, carry, x)

    inputs = (addends, inputs)
    return jax.lax.scan(turn, start, inputs, reverse=loop.reverse, unroll=loop.unroll)


def _cast(weights: Weights, loop: Loop) -> Weights:
    """Casts `weights` to the type of the products, once rather than at every step."""
    return {name: weight.astype(loop.dtype) for name, weight in weights.items()}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _times(
    subscripts: str, dtype, x: jax.Array, weight: jax.Array, transposed: jax.Array
) -> jax.Array:
    """Multiplies; the gradient goes on to `x` alone, and nothing of `x` is kept for it.

    transposed  `weight` as that gradient's product takes it, its axes ordered by `_transposed`
    """
    return einsum(subscripts, x, weight, dtype, jnp.float32)


def _times_backward(subscripts, dtype, transposed, gradient):
    operands, result = subscripts.split("->")
    dx = f"{result},{_transposed(subscripts)}->{operands.split(',')[0]}"
    return einsum(dx, gradient, transposed, dtype, jnp.float32), None, None


_times.defvjp(
    lambda subscripts, dtype, x, weight, transposed: (
        _times(subscripts, dtype, x, weight, transposed),
        transposed,
    ),
    _times_backward,
)


def _transposed(subscripts: str) -> str:
    """Returns the weight's letters, those of x alone after those of the result."""
    operands, result = subscripts.split("->")
    x_letters, letters = operands.split(",")
    return "".join(
        sorted(letters, key=lambda letter: (letter not in result, letter not in x_letters))
    )


def _transpose(subscripts: str, weight: jax.Array) -> jax.Array:
    letters = subscripts.split("->")[0].split(",")[1]
    return jnp.einsum(f"{letters}->{_transposed(subscripts)}", weight)


def _forward(step, loop: Loop, weights: Weights, addends: Weights, constants, start, inputs):
    types = {name: jnp.zeros((0,), weight.dtype) for name, weight in weights.items()}
    weights, subscripts = _cast(weights, loop), dict(loop.products)
    # Once here: left to the loop, every step would transpose them.
    transposed = {name: _transpose(subscripts[name], weights[name]) for name in subscripts}

    def take_step(constants, carry, x, taps):
        """Takes one step; returns also the left operands and the results of all products."""
        factors, results = {}, {}

        def multiply(name: str, x: jax.Array) -> jax.Array:
            factors[name] = x
            operands = x, weights[name], transposed[name]
            results[name] = _times(subscripts[name], loop.dtype, *operands)
            return results[name] + taps[name] if name in taps else results[name]

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

    # What is added to a product has the gradient of the product. Where nothing is, zeros are added.
    first = jax.tree.map(lambda x: x[0], inputs)
    shapes = jax.eval_shape(take_step, constants, start, first, {})[3]
    length = len(jax.tree.leaves(inputs)[0])
    taps = {name: jnp.zeros((length, *x.shape), x.dtype) for name, x in shapes.items()}
    taps |= addends
    result, pull_back, factors = jax.vjp(scan, constants, start, inputs, taps, has_aux=True)
    return result, (pull_back, factors, types, dict.fromkeys(addends))


def _backward(step, loop: Loop, saved, gradient):
    pull_back, factors, types, added = saved
    *others, taps = pull_back(gradient)
    weights = {}
    for name, subscripts in loop.products:
        operands, result = subscripts.split("->")
        x_letters, letters = operands.split(",")
        all_steps = f"t{x_letters},t{result}->{letters}"
        dweight = einsum(all_steps, factors[name], taps[name], loop.dtype, jnp.float32)
        weights[name] = dweight.astype(types[name].dtype)
    return weights, {name: taps[name] for name in added}, *others


scan_over_time.defvjp(_forward, _backward)
