"""No constant is rounded to bfloat16 before the product that it is for."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Literal
from support.jaxprs import equations
from support.samples import recurrent

from flax_transformer.models import build_model
from flax_transformer.ops.attention_tpu import tpu_attention
from flax_transformer.training.step import loss_sums

QUERY = jax.ShapeDtypeStruct((1, 128, 4, 32), jnp.bfloat16)
SEGMENTS = jax.ShapeDtypeStruct((1, 128), jnp.int32)


def rounded_factors(function, *arguments) -> list[float]:
    """The constants in bfloat16 by which `function` multiplies or divides, but for powers of two,
    which lose nothing. (Of the sizes in this file none is a power of four, whose root is one.)"""
    return [
        float(operand.val)
        for equation in equations(jax.make_jaxpr(function)(*arguments).jaxpr)
        if equation.primitive.name in ("mul", "div")
        for operand in equation.invars
        if isinstance(operand, Literal)
        and operand.aval.dtype == jnp.bfloat16
        and math.frexp(float(operand.val))[0] not in (0.5, -0.5)
    ]


def in_bfloat16(config):
    model = dataclasses.replace(config.model, compute_dtype="bfloat16", dropout=0.1)
    return dataclasses.replace(config, model=model)


@pytest.mark.parametrize("variant", ["transformer", "general", "multi_head"])
def test_training_rounds_no_factor(small_config, random_params, packed_batch, variant):
    config = small_config if variant == "transformer" else recurrent(small_config, variant)
    config = in_bfloat16(config)
    gradient = jax.grad(lambda *arguments: loss_sums(config, *arguments).loss)
    arguments = random_params(config), packed_batch, jax.random.key(0)
    assert rounded_factors(gradient, *arguments) == []


@pytest.mark.parametrize("variant", ["transformer", "multi_head"])
def test_decoding_rounds_no_factor(small_config, random_params, variant):
    config = small_config if variant == "transformer" else recurrent(small_config, variant)
    config = in_bfloat16(config)
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    params = jax.device_put(random_params(config))
    apply = functools.partial(model.apply, {"params": params})

    def decode(ids):
        memory = apply(ids, ids, ids, method="encode")
        cache = apply(memory, ids, 4, 2, method="start_cache")
        return apply(ids[:, :2], jnp.zeros((), jnp.int32), cache, method="decode_step")

    assert rounded_factors(decode, jnp.ones((2, 3), jnp.int32)) == []


def test_the_attention_kernel_rounds_no_factor():
    attend = functools.partial(tpu_attention, causal=True)
    assert rounded_factors(attend, *[QUERY] * 3, *[SEGMENTS] * 2) == []


def test_a_rounded_factor_is_seen():
    x = jax.ShapeDtypeStruct((3,), jnp.bfloat16)
    assert rounded_factors(lambda x: x * 0.9, x) == [float(jnp.bfloat16(0.9))]
    assert rounded_factors(lambda x: x * 0.5, x) == []
