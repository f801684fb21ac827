"""The gradient of layer normalisation as a GPU kernel, which reads its arrays once.

Letters: n rows, d width.
A kernel of XLA's sums either along a row or over the rows. So it would write to memory, in float32,
what the gradient of the scale sums, and read everything else three times.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from flax_transformer.ops import gpus

_ROWS = 16
"""Rows of one program, which takes them in steps."""
_NUMBERS = 2048  # per step, which registers hold
_NUM_WARPS = 4  # the fastest of 12 such choices on an H200 (benchmarks/notebook.md)
_WIDEST = 4096


def fits(x: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Returns whether the kernel takes `x` (b,t,d)."""
    b, t, d = x.shape
    fitting = b * t % _ROWS == 0 and 128 <= d <= _WIDEST and d & (d - 1) == 0
    return fitting and gpus.all_are(gpus.run_kernels)


def gradients(
    x: jax.Array, scale: jax.Array, gradient: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients of x, scale and bias for the `gradient` of `layer_norm`'s result.

    x         (b,t,d)
    scale     (d,)
    gradient  (b,t,d)
    results   (b,t,d) in the type of `x`; (p,d) and (p,d) in float32, whose sums over p are the
              gradients of scale and bias
    """
    d = x.shape[2]
    n = x.size // d
    step = min(_ROWS, max(1, _NUMBERS // d))
    parts = jax.ShapeDtypeStruct((n // _ROWS, d), jnp.float32)
    results = (jax.ShapeDtypeStruct((n, d), x.dtype), parts, parts)

    def kernel(x, scale, gradient, dx, dscale, dbias):
        program, factor = pl.program_id(0), scale[:][None]

        def add(index, sums):
            rows = pl.ds(program * _ROWS + index * step, step)
            centred = x[rows, :].astype(jnp.float32)
            centred -= centred.mean(axis=1, keepdims=True)
            deviation = jnp.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
            normal = centred / deviation
            dresult = gradient[rows, :].astype(jnp.float32)
            dnormal = dresult * factor
            along_x = (dnormal * normal).mean(axis=1, keepdims=True)
            rest = dnormal - dnormal.mean(axis=1, keepdims=True) - normal * along_x
            dx[rows, :] = (rest / deviation).astype(dx.dtype)
            return sums[0] + dresult * normal, sums[1] + dresult

        nothing = jnp.zeros((step, d), jnp.float32)
        sums = jax.lax.fori_loop(0, _ROWS // step, add, (nothing, nothing))
        dscale[program, :] = sums[0].sum(axis=0)
        dbias[program, :] = sums[1].sum(axis=0)

    dx, dscale, dbias = pl.pallas_call(
        kernel,
        grid=(n // _ROWS,),
        out_shape=results,
        compiler_params=triton.CompilerParams(num_warps=_NUM_WARPS, num_stages=2),
        cost_estimate=pl.CostEstimate(
            flops=20 * x.size,
            transcendentals=n,
            bytes_accessed=2 * x.nbytes + gradient.nbytes + 2 * 4 * d * (n // _ROWS),
        ),
        name="layer_norm_gradient",
    )(x.reshape(n, d), scale, gradient.reshape(n, d))
    return dx.reshape(x.shape), dscale, dbias
