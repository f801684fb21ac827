"""The gates of an LSTM, with a gradient that keeps fewer arrays.

Letters: u units.
"""

import jax
import jax.numpy as jnp

State = tuple[jax.Array, ...]
"""What a cell remembers: arrays (...,u) in float32. The first, h, is also its output."""


def lstm_reference(sums: jax.Array, state: State) -> State:
    """Computes `lstm` in plain lines."""
    i, f, o, g = jnp.moveaxis(sums, -2, 0)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


@jax.custom_vjp
def lstm(sums: jax.Array, state: State) -> State:
    """Steps from one state (h, c) of an LSTM to the next.

    Replaces (`lstm_reference`):

        i, f, o, g = jnp.moveaxis(sums, -2, 0)
        c = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
        sigmoid(o) * tanh(c), c

    sums    (...,4,u), what input and last state give to the gates i, f, o, g
    state   (h, c), arrays (...,u)
    result  (h, c), arrays (...,u)

    Differentiating the plain lines would keep, and read again, twice as many arrays per position.
    """
    return _forward(sums, state)[0]


def _forward(sums, state):
    # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: one pass for all gates.
    is_gate = jnp.arange(4)[(None,) * (sums.ndim - 2) + (slice(None), None)] < 3
    scale = jnp.where(is_gate, 0.5, 1.0)
    gates = scale * jnp.tanh(scale * sums) + jnp.where(is_gate, 0.5, 0.0)
    i, f, o, g = (gates[..., k, :] for k in range(4))
    c = f * state[1] + i * g
    squashed = jnp.tanh(c)
    return (o * squashed, c), (gates, state[1], squashed)


def _backward(saved, gradient):
    gates, c, squashed = saved
    i, f, o, g = (gates[..., k, :] for k in range(4))
    dh, dnew_c = gradient
    dnew_c += dh * o * (1 - squashed**2)
    dsums = (
        dnew_c * g * i * (1 - i),
        dnew_c * c * f * (1 - f),
        dh * squashed * o * (1 - o),
        dnew_c * i * (1 - g**2),
    )
    return jnp.stack(dsums, axis=-2), (jnp.zeros_like(dh), dnew_c * f)


lstm.defvjp(_forward, _backward)
