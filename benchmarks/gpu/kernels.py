"""Whether the kernels of the device at hand are right: each beside the lines that it replaces.

    python -m benchmarks.gpu.kernels

The model's own operations in bfloat16, as it trains with them, and their reference in bfloat16 are
both compared with the reference in float32: outputs and the gradients of all arrays. A kernel may
be as far from it as plain bfloat16 is, twice over. What packed neighbours must not see is compared
exactly. Ends with code 2 where something is wrong. Then times attention, with its gradient, beside
cuDNN's where that takes it, and beside the formula.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.timing import Seconds, in_turns
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import TransformerConfig
from flax_transformer.errors import require
from flax_transformer.models.transformer import scaled_dot_product_attention
from flax_transformer.ops import attention_cudnn
from flax_transformer.ops.attention import visible
from flax_transformer.ops.kernels import Ops, ops_for
from flax_transformer.parallel import collectives

_TIMES = 2.0
_SLACK = 2**-8
"""Of the largest value: what may come on top. A kernel rounds to bfloat16 what is then multiplied,
and the reference may keep it in float32."""


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Compares kernels with their references on this device."""

    rows: int = 8
    length: int = 256
    d_model: int = 512
    num_heads: int = 8
    vocabulary_size: int = 37_000
    timed_rows: int = 64
    """Rows of the attention that is timed."""
    timed_calls: int = 20
    """Calls of each kind of attention in a turn, of which there are ten."""
    record: Path = RECORDS / "gpu_kernels.json"


class Case(NamedTuple):
    """An operation and what it is given: `compute(ops, dtype, *arrays)`, which has a gradient for
    each array."""

    compute: Callable[..., jax.Array]
    arrays: tuple[jax.Array, ...]


def main(words: Sequence[str]) -> None:
    arguments = parse_arguments(Arguments, words)
    figures: dict[str, Any] = {"device": jax.devices()[0].device_kind, "errors": {}}
    wrong = []
    for name, case in cases(arguments).items():
        found = compare(case)
        figures["errors"][name] = found
        allowed = [_TIMES * each + _SLACK for each in found["reference"]]
        if not all(map(float.__le__, found["kernel"], allowed)):
            wrong.append(name)
        shown = ", ".join(
            f"{kernel:.1e} ({reference:.1e})"
            for kernel, reference in zip(found["kernel"], found["reference"], strict=True)
        )
        print(f"{name:<28}{'WRONG' if name in wrong else 'right'}  {shown}", flush=True)
    seen = sees_neighbours(arguments)
    figures["neighbours_unseen"] = not seen
    print(f"{'packed neighbours':<28}{'SEEN' if seen else 'exactly unseen'}")
    require(not wrong and not seen, f"these kernels are wrong on this device: {wrong or 'packing'}")
    figures["attention_ms"] = {}
    for name, seconds in time_attention(arguments).items():
        figures["attention_ms"][name] = 1000 * seconds.median
        print(f"{'attention, ' + name:<28}{1000 * seconds.median:8.3f} ms with its gradient")
    append_record(arguments, ("jax", "jaxlib"), figures)


def time_attention(arguments: Arguments) -> dict[str, Seconds]:
    """Returns what a causal attention over packed rows and its gradient take, by who computes it:
    what the model takes here, the formula, and cuDNN where it takes these arrays."""
    b, t = arguments.timed_rows, arguments.length
    shape = (b, t, arguments.num_heads, arguments.d_model // arguments.num_heads)
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(key, shape, jnp.bfloat16) for key in keys]
    segments = packed_segments(b, t)
    chosen = {"as the model takes it": "fast", "the formula": "reference"}
    contenders: dict[str, Callable[..., jax.Array]] = {}
    for name, kernels in chosen.items():
        ops = ops_in("bfloat16", kernels)
        contenders[name] = partial(_attention, ops, "bfloat16", segments=segments, causal=True)
    if collectives.platform() == "gpu" and attention_cudnn.fits(*arrays[:2]):
        mask = visible(segments, segments, causal=True)
        contenders["cuDNN"] = partial(attention_cudnn.cudnn_attention, mask=mask)

    def calls(compute: Callable[..., jax.Array]) -> Callable[[], object]:
        gradient = jax.jit(
            jax.grad(lambda *x: compute(*x).astype(jnp.float32).sum(), argnums=(0, 1, 2))
        )
        return lambda: jax.block_until_ready(
            [gradient(*arrays) for _ in range(arguments.timed_calls)]
        )

    turns = in_turns({name: calls(each) for name, each in contenders.items()}, repeats=10)
    return {name: seconds / arguments.timed_calls for name, seconds in turns.items()}


def ops_in(dtype: str, kernels: str) -> Ops:
    return ops_for(TransformerConfig(compute_dtype=dtype, kernels=kernels))


def compare(case: Case) -> dict[str, list[float]]:
    """Returns how far kernel and reference in bfloat16 are from float32: the output, then each
    gradient, as a share of the largest value."""

    def results(dtype: str, kernels: str) -> list[np.ndarray]:
        def weighed(*arrays):
            output = case.compute(ops_in(dtype, kernels), dtype, *arrays).astype(jnp.float32)
            return (output * _weights(output.shape)).sum(), output

        grad = jax.grad(weighed, argnums=tuple(range(len(case.arrays))), has_aux=True)
        with jax.default_matmul_precision("highest"):
            gradients, output = jax.jit(grad)(*case.arrays)
        return [np.asarray(each, np.float64) for each in (output, *gradients)]

    exact = results("float32", "reference")
    return {
        name: [
            float(np.abs(one - true).max() / max(np.abs(true).max(), 1e-30))
            for one, true in zip(results("bfloat16", kernels), exact, strict=True)
        ]
        for name, kernels in (("kernel", "fast"), ("reference", "reference"))
    }


def _weights(shape: tuple[int, ...]) -> jax.Array:
    """Weights of a sum, so that no gradient is the same everywhere, and none cancels."""
    return 1.5 + jnp.cos(jnp.arange(np.prod(shape, dtype=int), dtype=jnp.float32)).reshape(shape)


def cases(arguments: Arguments) -> dict[str, Case]:
    """Returns every operation for which the device may have a kernel, by name."""
    keys = iter(jax.random.split(jax.random.key(0), 32))
    b, t, d, v = (
        arguments.rows, arguments.length, arguments.d_model, arguments.vocabulary_size
    )  # fmt: skip

    def normal(*shape: int) -> jax.Array:
        # Numbers of bfloat16, so that rounding the operands changes nothing.
        return jax.random.normal(next(keys), shape, jnp.bfloat16).astype(jnp.float32)

    heads = (b, t, arguments.num_heads, d // arguments.num_heads)
    segments = packed_segments(b, t)
    targets = jax.random.randint(next(keys), (b, t), 0, v)
    loss = partial(_loss, targets=targets, weights=(segments > 0).astype(jnp.float32))
    return {
        f"attention{', causal' if causal else ''}": Case(
            partial(_attention, segments=segments, causal=causal),
            (normal(*heads), normal(*heads), normal(*heads)),
        )
        for causal in (False, True)
    } | {
        "layer norm": Case(_layer_norm, (normal(b, t, d), 1 + normal(d) / 8, normal(d))),
        "cross entropy": Case(loss, (normal(b, t, d) / 4, normal(v, d) / 8)),
    }


def packed_segments(b: int, t: int) -> jax.Array:
    """Returns rows (b,t) of sentences of different lengths, each with padding at its end."""
    ends = np.cumsum(np.random.default_rng(0).integers(8, 40, (b, t)), axis=1)
    places = np.arange(t)[None, :, None]
    numbers = 1 + (places >= ends[:, None, :]).sum(axis=2)
    return jnp.asarray(np.where(np.arange(t)[None] < t - t // 16, numbers, 0), jnp.int32)


def _attention(ops: Ops, dtype: str, query, key, value, *, segments, causal) -> jax.Array:
    formula = partial(scaled_dot_product_attention, einsum=ops.einsum, tap=lambda weights: weights)
    arrays = (each.astype(dtype) for each in (query, key, value))
    found = ops.attention(formula, *arrays, segments, segments, causal)
    return jnp.where((segments > 0)[:, :, None, None], found, 0)


def _layer_norm(ops: Ops, dtype: str, x, scale, bias) -> jax.Array:
    return ops.layer_norm(x.astype(dtype), scale, bias, 1e-6)


def _loss(ops: Ops, dtype: str, features, table, *, targets, weights) -> jax.Array:
    return ops.cross_entropy(features.astype(dtype), table, targets, weights, 0.1).loss


def sees_neighbours(arguments: Arguments) -> bool:
    """Returns whether another sentence of the row changes what attention finds, in any bit."""
    arrays = cases(arguments)["attention"].arrays
    segments = packed_segments(arguments.rows, arguments.length)
    other = (segments != 1)[:, :, None, None]

    def first_sentence(*arrays):
        ops = ops_in("bfloat16", "fast")
        found = _attention(ops, "bfloat16", *arrays, segments=segments, causal=False)
        return jnp.where(other, 0, found)

    before, after = (
        jax.jit(first_sentence)(arrays[0], *(jnp.where(other, factor * x, x) for x in arrays[1:]))
        for factor in (1, -3)
    )
    return not bool((before == after).all())


if __name__ == "__main__":
    run_command(main)
