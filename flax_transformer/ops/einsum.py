"""Matrix products in the compute type, summed in float32 in both directions."""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from flax_transformer.parallel import collectives

MATRIX_PRODUCT = "matrix_product"
"""Names, for remat policies, every product without a batch axis: costly to compute again."""


def einsum_reference(
    subscripts: str, x: jax.Array, y: jax.Array, dtype, out_dtype=None
) -> jax.Array:
    """Computes `einsum` in plain lines: float32 holds a product of two bfloat16 numbers exactly."""
    x, y = (operand.astype(dtype).astype(jnp.float32) for operand in (x, y))
    return jnp.einsum(subscripts, x, y, precision="highest").astype(out_dtype or dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def einsum(subscripts: str, x: jax.Array, y: jax.Array, dtype, out_dtype=None) -> jax.Array:
    """Computes `jnp.einsum(subscripts, x, y)` of operands cast to `dtype`, summed in float32.

    Replaces (`einsum_reference`):

        x, y = (operand.astype(dtype).astype(jnp.float32) for operand in (x, y))
        jnp.einsum(subscripts, x, y, precision="highest").astype(out_dtype or dtype)

    The result has the type `out_dtype`, by default `dtype`. The gradient's two products take
    operands of `dtype` as well: left to itself, differentiation would multiply a float32 cotangent
    by a bfloat16 operand, which no matrix unit does at full speed. Every letter of an operand must
    appear in the other one or in the result.
    """
    return _named_product(subscripts, x, y, dtype, out_dtype)


def _named_product(subscripts, x, y, dtype, out_dtype):
    result = _product(subscripts, x, y, dtype, out_dtype or dtype)
    return result if _is_batched(subscripts) else checkpoint_name(result, MATRIX_PRODUCT)


def _product(subscripts, x, y, dtype, out_dtype):
    """Multiplies operands rounded to `dtype`; sums in float32, and returns `out_dtype`."""
    # On TPU and GPU the default precision would round float32 operands.
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    # A GPU sums in float32 whatever type is asked for, and writes twice as much for float32.
    product_type = out_dtype if collectives.platform() == "gpu" else jnp.float32

    def multiply(x, y):
        return jnp.einsum(
            subscripts, x, y, precision=precision, preferred_element_type=product_type
        )

    def multiply_on_cpu(x, y):
        # XLA's CPU backend has no bfloat16 product with a batch axis, as attention needs.
        return multiply(x.astype(jnp.float32), y.astype(jnp.float32))

    x, y = x.astype(dtype), y.astype(dtype)
    subscripts, x, y = _in_order(subscripts, x, y)
    if _is_batched(subscripts):
        product = jax.lax.platform_dependent(x, y, cpu=multiply_on_cpu, default=multiply)
    else:
        product = multiply(x, y)
    return product.astype(out_dtype)


def _in_order(subscripts: str, x: jax.Array, y: jax.Array) -> tuple[str, jax.Array, jax.Array]:
    """Puts the operand on the left whose letters the result has first.

    In the other order XLA's CPU backend takes three times as long where there is a batch axis.
    """
    operands, result = subscripts.split("->")
    x_letters, y_letters = operands.split(",")
    first = next(
        (letter for letter in result if (letter in x_letters) != (letter in y_letters)), ""
    )
    if first in x_letters:
        return subscripts, x, y
    return f"{y_letters},{x_letters}->{result}", y, x


def _is_batched(subscripts: str) -> bool:
    operands, result = subscripts.split("->")
    x_letters, y_letters = operands.split(",")
    return bool(set(x_letters) & set(y_letters) & set(result))


def _forward(subscripts, x, y, dtype, out_dtype):
    # An empty array of each operand's type remembers what type its gradient must have.
    types = (jnp.zeros((0,), x.dtype), jnp.zeros((0,), y.dtype))
    # Not `einsum` itself, inside which a remat policy would not find the name.
    result = _named_product(subscripts, x, y, dtype, out_dtype)
    return result, (x.astype(dtype), y.astype(dtype), types)


def _backward(subscripts, dtype, out_dtype, saved, gradient):
    x, y, (x_type, y_type) = saved
    operands, result = subscripts.split("->")
    x_letters, y_letters = operands.split(",")
    dx = _product(f"{result},{y_letters}->{x_letters}", gradient, y, dtype, x_type.dtype)
    dy = _right_gradient(f"{x_letters},{result}->{y_letters}", x, gradient, dtype, y_type.dtype)
    return dx, dy


def _right_gradient(
    subscripts: str, x: jax.Array, gradient: jax.Array, dtype, out_dtype
) -> jax.Array:
    """Returns the gradient of a right operand, a product: for weights, a sum over positions.

    XLA's CPU backend transposes the left operand of such a sum. Where that operand is wide, this
    takes longer than the product (rows 4 KiB apart share a few lines of the cache). So the narrower
    operand goes left, and the result is transposed, which is no larger than the weights.
    """
    if collectives.platform() != "cpu" or _is_batched(subscripts) or x.size <= gradient.size:
        return _product(subscripts, x, gradient, dtype, out_dtype)
    operands, result = subscripts.split("->")
    x_letters, gradient_letters = operands.split(",")
    transposed = "".join(sorted(result, key=lambda letter: letter in x_letters))
    product = _product(
        f"{gradient_letters},{x_letters}->{transposed}", gradient, x, dtype, out_dtype
    )
    # The barrier keeps XLA from merging the two transposes into one again.
    return jnp.einsum(f"{transposed}->{result}", jax.lax.optimization_barrier(product))


einsum.defvjp(_forward, _backward)
