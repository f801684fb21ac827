"""Dropout whose mask is computed where it is used, from a counter."""

import math

import jax
import jax.numpy as jnp


def dropout_reference(x: jax.Array, key: jax.Array, rate: float) -> jax.Array:
    """Computes `dropout` in plain lines."""
    seed, offset = jax.random.bits(key, (2,), "uint32")
    index = jnp.arange(math.prod(x.shape), dtype="uint32").reshape(x.shape)
    keep = _hash(_hash(index ^ seed) + offset) < _threshold(1 - rate)
    return jnp.where(keep, x.astype(jnp.float32) / (1 - rate), 0).astype(x.dtype)


def dropout(x: jax.Array, key: jax.Array, rate: float) -> jax.Array:
    """Zeroes a share `rate` of the elements of `x` and scales up the rest (Srivastava et al. 2014).

    Stands for

        keep = jax.random.bernoulli(key, 1 - rate, x.shape)
        jnp.where(keep, x / (1 - rate), 0)

    with other random bits: a hash of an element's place and of the key decides whether it stays, so
    the mask is the same however many devices share the array. Hashing a counter on the spot costs a
    few integer operations per element, far fewer than random bits by threefry, and nothing is
    stored. Replaces (`dropout_reference`):

        seed, offset = jax.random.bits(key, (2,), "uint32")
        index = jnp.arange(x.size, dtype="uint32").reshape(x.shape)
        keep = hash(hash(index ^ seed) + offset) < (1 - rate) * 2**32
        jnp.where(keep, x.astype(jnp.float32) / (1 - rate), 0).astype(x.dtype)
    """
    keep = keep_mask(key, x.shape, 1 - rate)
    # Rounded last: a Python float times a bfloat16 array becomes bfloat16 before the product, and
    # in bfloat16 1 / 0.9 is 0.16% too small, for every element alike.
    scaled = x.astype(jnp.float32) * (1 / (1 - rate))
    return jnp.where(keep, scaled, 0).astype(x.dtype)


def keep_mask(key: jax.Array, shape: tuple[int, ...], keep_rate: float) -> jax.Array:
    """Returns a bool array, True with probability `keep_rate`, independent for every key."""
    seed, offset = jax.random.bits(key, (2,), "uint32")
    return _hash(_hash(_index(shape) ^ seed) + offset) < _threshold(keep_rate)


def _threshold(keep_rate: float) -> jax.Array:
    return jnp.uint32(round(keep_rate * (2**32 - 1)))


def _index(shape: tuple[int, ...]) -> jax.Array:
    """Returns each element's place in row-major order, modulo 2^32, as uint32."""
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        place = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        index += place * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return index


def _hash(x: jax.Array) -> jax.Array:
    """Mixes every input bit into every output bit: a bijection of 32 bits.

    Source: murmur3's finaliser (Appleby 2011).
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
