"""What a recurrent network does at one position: LSTM and GRU.

Letters: b batch, g gates, u units of a layer. Every cell takes what its input and its last state
give to each gate, (...,g,u) in float32, so that either product can be made wherever it is cheapest.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from flax_transformer.ops.kernels import Ops
from flax_transformer.ops.lstm import State


class Cell(NamedTuple):
    """A kind of cell."""

    num_gates: int
    """g: how many products of the input, and how many of the last state, a cell takes."""
    num_arrays: int
    """How many arrays a `State` has."""
    step: Callable[[Ops, jax.Array, jax.Array, State], State]
    """(ops, from_input (...,g,u), from_state (...,g,u), last state) -> state."""
    initial_bias: tuple[float, ...]
    """The bias that each gate starts with."""
    additive: bool
    """Whether only the sum of from_input and from_state counts."""


def lstm(ops: Ops, from_input: jax.Array, from_state: jax.Array, state: State) -> State:
    """Computes c_t = f c_(t-1) + i tanh(g) and h_t = o tanh(c_t); gates in the order i, f, o, g.

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    return ops.lstm(from_input + from_state, state)


def gru(_: Ops, from_input: jax.Array, from_state: jax.Array, state: State) -> State:
    """Computes h_t = (1 - z) n + z h_(t-1) (Cho et al. 2014); gates in the order r, z, n.

    The reset gate r is applied after the product, n = tanh(W x + r (U h)), as in cuDNN and
    PyTorch, rather than before it, so that one product per step serves all gates.
    """
    chex.assert_equal_shape([from_input, from_state])
    (h,) = state
    r, z = jnp.moveaxis(jax.nn.sigmoid((from_input + from_state)[..., :2, :]), -2, 0)
    n = jnp.tanh(from_input[..., 2, :] + r * from_state[..., 2, :])
    return ((1 - z) * n + z * h,)


CELLS = {
    # Forgetting little at first lets gradients through (Jozefowicz et al. 2015).
    "lstm": Cell(4, 2, lstm, (0.0, 1.0, 0.0, 0.0), additive=True),
    "gru": Cell(3, 1, gru, (0.0, 0.0, 0.0), additive=False),
}
