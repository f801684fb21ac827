"""Matrix products: equal to einsum, in the right types in both directions."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.jaxprs import equations, products

from flax_transformer.ops.einsum import einsum, einsum_reference
from flax_transformer.parallel import collectives

SIZES = {"b": 2, "t": 3, "s": 4, "d": 6, "h": 5, "k": 7, "v": 8}

PRODUCTS = [
    "bsd,dhk->bshk",
    "bthk,hkd->btd",
    "bthk,bshk->bhts",
    "bhts,bshk->bthk",
    "btd,vd->btv",
]


def operands(subscripts, seed=0):
    random = np.random.default_rng(seed)
    letters, _ = subscripts.split("->")
    return [
        random.normal(size=[SIZES[letter] for letter in each]).astype(np.float32)
        for each in letters.split(",")
    ]


def result_and_gradients(function, x, y):
    """And the gradients of a number that depends on every element of the result differently."""

    def total(x, y):
        result = function(x, y)
        weights = jnp.cos(jnp.arange(result.size, dtype=jnp.float32)).reshape(result.shape)
        return (result * weights).sum(), result

    gradients, result = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(x, y)
    return result, gradients


def plain(subscripts):
    return lambda x, y: jnp.einsum(subscripts, x, y, precision="highest")


@pytest.mark.parametrize("subscripts", PRODUCTS)
def test_equals_einsum(subscripts):
    x, y = operands(subscripts)
    product = functools.partial(einsum, subscripts, dtype=jnp.float32)
    expected = result_and_gradients(plain(subscripts), x, y)
    chex.assert_trees_all_close(result_and_gradients(product, x, y), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("subscripts", PRODUCTS)
@pytest.mark.parametrize("out_dtype", [None, jnp.float32])
def test_equals_its_reference_in_bfloat16(subscripts, out_dtype):
    """To the rounding of the cotangent, which only the fast gradient rounds."""
    x, y = operands(subscripts)
    both = [
        result_and_gradients(
            functools.partial(function, subscripts, dtype=jnp.bfloat16, out_dtype=out_dtype), x, y
        )
        for function in (einsum, einsum_reference)
    ]
    (result, gradients), (expected, expected_gradients) = both
    assert result.dtype == expected.dtype == (out_dtype or jnp.bfloat16)
    widened = [each.astype(jnp.float32) for each in (result, expected)]
    chex.assert_trees_all_close(*widened, rtol=0.01 if out_dtype is None else 1e-5, atol=1e-5)
    chex.assert_trees_all_close(gradients, expected_gradients, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("subscripts", PRODUCTS)
def test_bfloat16_rounds_operands_only(subscripts):
    x, y = operands(subscripts)
    product = functools.partial(einsum, subscripts, dtype=jnp.bfloat16, out_dtype=jnp.float32)
    result, gradients = result_and_gradients(product, x, y)
    rounded = [np.asarray(jnp.asarray(each, jnp.bfloat16), np.float32) for each in (x, y)]
    chex.assert_trees_all_close(result, np.einsum(subscripts, *rounded), rtol=1e-5, atol=1e-5)
    _, exact = result_and_gradients(plain(subscripts), x, y)
    chex.assert_type(gradients, [jnp.float32, jnp.float32])
    chex.assert_trees_all_close(gradients, exact, rtol=0.05, atol=0.05)
    by_default = jax.eval_shape(lambda x, y: einsum(subscripts, x, y, jnp.bfloat16), x, y)
    assert by_default.dtype == jnp.bfloat16


@pytest.mark.parametrize("subscripts", PRODUCTS)
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_products_take_bfloat16_in_both_directions(subscripts, platform):
    x, y = operands(subscripts)

    def loss(x, y):
        return (einsum(subscripts, x, y, jnp.bfloat16, jnp.float32) ** 2).sum()

    lowered = (
        jax.jit(jax.grad(loss, argnums=(0, 1))).trace(x, y).lower(lowering_platforms=(platform,))
    )
    lines = [line for line in lowered.as_text().splitlines() if "stablehlo.dot_general" in line]
    assert len(lines) == 3
    # XLA's CPU backend has no bfloat16 products with a batch axis.
    widened = platform == "cpu" and subscripts in ("bthk,bshk->bhts", "bhts,bshk->bthk")
    for line in lines:
        types = line.rsplit(":", 1)[1]
        assert types.count("bf16") == (0 if widened else 2), line
        assert types.split("->")[1].strip().endswith("xf32>"), line


def test_only_products_without_a_batch_axis_are_named_for_remat():
    for subscripts in PRODUCTS:
        x, y = operands(subscripts)
        trace = jax.make_jaxpr(lambda x, y: einsum(subscripts, x, y, jnp.float32))  # noqa: B023
        jaxpr = trace(x, y)
        named = any(each.primitive.name == "name" for each in equations(jaxpr))
        batched = subscripts in ("bthk,bshk->bhts", "bhts,bshk->bthk")
        assert products(jaxpr)
        assert named == (not batched)


@pytest.mark.parametrize("subscripts", ["btd,df->btf", "btf,fd->btd"])
def test_the_narrow_operand_is_turned_for_the_gradient_of_weights(subscripts):
    """XLA's CPU backend turns the left one of a sum over positions; a wide one takes it longer than
    the product."""
    widths = {"b": 4, "t": 8, "d": 16, "f": 64}
    letters, _ = subscripts.split("->")
    shapes = [[widths[letter] for letter in each] for each in letters.split(",")]
    x, y = (jnp.ones(shape, jnp.float32) for shape in shapes)

    def loss(x, y):
        return (einsum(subscripts, jnp.sin(x), y, jnp.float32) ** 2).sum()

    program = jax.jit(jax.grad(loss, argnums=1)).lower(x, y).compile().as_text()
    transposed = {
        tuple(map(int, size.split(","))) for size in re.findall(r"f32\[([\d,]+)\]", program)
    }
    assert (16, 32) in transposed
    assert (64, 32) not in transposed


@pytest.mark.parametrize(("platform", "types"), [("gpu", "bfloat16"), ("tpu", "float32")])
def test_a_gpu_writes_products_as_they_are_wanted(monkeypatch, platform, types):
    """Where the sum is in float32 anyway, the result need not be."""
    monkeypatch.setattr(collectives, "platform", lambda: platform)
    x, y = (each.astype(jnp.bfloat16) for each in operands("bsd,dhk->bshk"))

    def total(x, y):
        return einsum("bsd,dhk->bshk", x, y, jnp.bfloat16).astype(jnp.float32).sum()

    found = products(jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(x, y))
    assert {str(each.outvars[0].aval.dtype) for each in found} == {types}
    gradient = jax.grad(total, argnums=1)(x, y.astype(jnp.float32))
    assert gradient.dtype == jnp.float32  # of parameters it stays whole
