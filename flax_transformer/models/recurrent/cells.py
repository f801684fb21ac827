"""What a recurrent network does at one position: LSTM and GRU.

Letters: b batch, g gates, u units of a layer. Every cell takes what its input and its last state
give to each gate, (...,g,u) in float32, so that either product can be made wherever it is cheapest.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

State = tuple[jax.Array, ...]
"""What a cell remembers, arrays (...,u) in float32; the first, h, is also its output."""


class Cell(NamedTuple):
    """A kind of cell."""

    num_gates: int
    """g: products of the input, and of the last state, that a cell takes."""
    num_arrays: int
    """Arrays of a `State`."""
    advance: Callable[[jax.Array, jax.Array, State], State]
    """(from_input (...,g,u), from_state (...,g,u), last state) -> state."""
    initial_bias: tuple[float, ...]
    """Of each gate."""
    additive: bool
    """Whether only the sum of from_input and from_state counts."""


def lstm(from_input: jax.Array, from_state: jax.Array, state: State) -> State:
    """c_t = f c_(t-1) + i tanh(g), h_t = o tanh(c_t) (Hochreiter and Schmidhuber 1997, with the
    forget gate of Gers et al. 2000); gates in the order i, f, o, g."""
    return _lstm(from_input + from_state, state)


@jax.custom_vjp
def _lstm(sums: jax.Array, state: State) -> State:
    return _lstm_forward(sums, state)[0]


def _lstm_forward(sums, state):
    # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: one pass for all gates.
    is_gate = jnp.arange(4)[(None,) * (sums.ndim - 2) + (slice(None), None)] < 3
    scale = jnp.where(is_gate, 0.5, 1.0)
    gates = scale * jnp.tanh(scale * sums) + jnp.where(is_gate, 0.5, 0.0)
    i, f, o, g = (gates[..., k, :] for k in range(4))
    c = f * state[1] + i * g
    squashed = jnp.tanh(c)
    return (o * squashed, c), (gates, state[1], squashed)


def _lstm_backward(saved, gradient):
    gates, c, squashed = saved
    i, f, o, g = (gates[..., k, :] for k in range(4))
    of_h, of_new_c = gradient
    of_new_c += of_h * o * (1 - squashed**2)
    of_sums = (
        of_new_c * g * i * (1 - i),
        of_new_c * c * f * (1 - f),
        of_h * squashed * o * (1 - o),
        of_new_c * i * (1 - g**2),
    )
    return jnp.stack(of_sums, axis=-2), (jnp.zeros_like(of_h), of_new_c * f)


# Differentiation would keep, and read again, twice as many arrays of every position.
_lstm.defvjp(_lstm_forward, _lstm_backward)


def gru(from_input: jax.Array, from_state: jax.Array, state: State) -> State:
    """h_t = (1 - z) n + z h_(t-1) (Cho et al. 2014); gates in the order r, z, n.

    The reset gate r is applied behind the product, n = tanh(W x + r (U h)), as in cuDNN and
    PyTorch, rather than before it, so that one product a step serves all gates.
    """
    chex.assert_equal_shape([from_input, from_state])
    (h,) = state
    r, z = jnp.moveaxis(jax.nn.sigmoid((from_input + from_state)[..., :2, :]), -2, 0)
    n = jnp.tanh(from_input[..., 2, :] + r * from_state[..., 2, :])
    return ((1 - z) * n + z * h,)


CELLS = {
    # To forget little at first lets gradients through (Jozefowicz et al. 2015).
    "lstm": Cell(4, 2, lstm, (0.0, 1.0, 0.0, 0.0), additive=True),
    "gru": Cell(3, 1, gru, (0.0, 0.0, 0.0), additive=False),
}
