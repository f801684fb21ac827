"""One LSTM layer forward and backward, ours and another library's, in one run, in turn.

    python benchmarks/recurrent_step.py [--peer torch]

Both take inputs (t,b,d) and give the gradients of the inputs and of all weights. Figures are
medians; nothing else may run on the machine. PyTorch is no part of this project: install it beside.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from flax_transformer.config import RecurrentConfig
from flax_transformer.models.recurrent.layer import RecurrentLayer
from flax_transformer.runtime.memory import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Times one LSTM layer."""

    peer: Literal["none", "torch"] = "none"
    """Whom to compare with."""
    length: int = 64
    """Positions (t)."""
    rows: int = 64
    """Sequences (b)."""
    width: int = 256
    """Width of the input and units (d)."""
    threads: int = 2
    """Threads of the peer."""
    unroll_steps: int = 1
    repeats: int = 20


def our_layer(arguments: Arguments, dtype: Literal["float32", "bfloat16"], x, weights):
    """Takes one pass; returns nothing before it is done."""
    d = arguments.width
    config = RecurrentConfig(
        d_model=d, compute_dtype=dtype, unroll_steps=arguments.unroll_steps, bidirectional=False
    )
    layer = RecurrentLayer(config, d)
    begins = jnp.zeros(x.shape[:2], bool).at[0].set(True)
    params = jax.jit(layer.init)(jax.random.key(0), x, begins)["params"]

    @jax.jit
    def gradient(params, x):
        def loss(params, x):
            return (layer.apply({"params": params}, x, begins)[0] * weights).sum()

        return jax.value_and_grad(loss, argnums=(0, 1))(params, x)

    return lambda: jax.block_until_ready(gradient(params, x))


def torch_layer(arguments: Arguments, bfloat16: bool, x, weights):
    """`torch.nn.LSTM`, in float32 or with autocast to bfloat16."""
    import torch

    torch.set_num_threads(arguments.threads)
    layer = torch.nn.LSTM(arguments.width, arguments.width)
    inputs = torch.tensor(np.asarray(x), requires_grad=True)
    of_outputs = torch.tensor(np.asarray(weights))

    def run():
        layer.zero_grad()
        inputs.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            outputs, _ = layer(inputs)
        (outputs * of_outputs).sum().backward()

    return run


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main(arguments: Arguments) -> None:
    shape = (arguments.length, arguments.rows, arguments.width)
    random = np.random.default_rng(0)
    x, weights = (jnp.asarray(random.normal(size=shape), jnp.float32) for _ in range(2))
    passes = {
        "ours, float32": our_layer(arguments, "float32", x, weights),
        "ours, bfloat16": our_layer(arguments, "bfloat16", x, weights),
    }
    if arguments.peer == "torch":
        passes["torch, float32"] = torch_layer(arguments, False, x, weights)
        passes["torch, bfloat16"] = torch_layer(arguments, True, x, weights)
    times: dict[str, list[float]] = {name: [] for name in passes}
    for repeat in range(arguments.repeats + 2):
        for name, run in passes.items():
            taken = seconds(run)
            if repeat >= 2:  # the first ones warm up
                times[name].append(taken)
    positions = arguments.length * arguments.rows
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:<18}{1e3 * median:8.1f} ms {positions / median:12,.0f} positions/s")


if __name__ == "__main__":
    keep_freed_memory()
    main(tyro.cli(Arguments))
