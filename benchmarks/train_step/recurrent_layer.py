"""One LSTM layer forward and backward, ours and another library's, in one run, in turn.

    python -m benchmarks.train_step.recurrent_layer
    python -m benchmarks.train_step.recurrent_layer --peer torch

Both take inputs (t,b,d) and give the gradients of the inputs and of all weights. Figures are
medians; nothing else may run on the machine. PyTorch is no part of this project: install it beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.timing import in_turns
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import RecurrentConfig
from flax_transformer.models.recurrent.layer import RecurrentLayer


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Times one LSTM layer."""

    peer: Literal["torch"] | None = None
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
    record: Path = RECORDS / "recurrent_layer.json"


def our_layer(arguments: Arguments, dtype: Literal["float32", "bfloat16"], x, weights):
    """Returns a function that takes one pass and returns when it is done."""
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
    """Returns the same of `torch.nn.LSTM`, in float32 or with autocast to bfloat16."""
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


def passes(arguments: Arguments):
    """Makes everything that is timed, on the same inputs."""
    shape = (arguments.length, arguments.rows, arguments.width)
    random = np.random.default_rng(0)
    x, weights = (jnp.asarray(random.normal(size=shape), jnp.float32) for _ in range(2))
    found = {
        "ours, float32": our_layer(arguments, "float32", x, weights),
        "ours, bfloat16": our_layer(arguments, "bfloat16", x, weights),
    }
    if arguments.peer == "torch":
        found["torch, float32"] = torch_layer(arguments, False, x, weights)
        found["torch, bfloat16"] = torch_layer(arguments, True, x, weights)
    return found


def main(words: Sequence[str]) -> None:
    arguments = parse_arguments(Arguments, words)
    seconds = in_turns(passes(arguments), arguments.repeats, warm_up=2)
    positions = arguments.length * arguments.rows
    results = {
        name: {"milliseconds": 1e3 * each.median, "positions_per_second": positions / each.median}
        for name, each in seconds.items()
    }
    for name, result in results.items():
        print(
            f"{name:<18}{result['milliseconds']:8.1f} ms "
            f"{result['positions_per_second']:12,.0f} positions/s"
        )
    sizes = {name: getattr(arguments, name) for name in ("length", "rows", "width")}
    packages = ("jax", "jaxlib", *((arguments.peer,) if arguments.peer else ()))
    append_record(arguments, packages, sizes | {"results": results})


if __name__ == "__main__":
    run_command(main)
