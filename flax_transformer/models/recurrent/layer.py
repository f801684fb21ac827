"""One recurrent layer over whole sequences, and what happens at the borders of packed pairs.

Letters: t position (source or target), b batch, d width, g gates, u units. Arrays have the
position first, as the loop over positions takes them.

Rows stay packed. A row is a chain of sentence pairs, and where one begins the state is set to what
it must start from (zero in the encoder, the encoder's last state of the same pair in the decoder).
With this one select per position, a pair gets the same numbers as it would alone in a row. One pair
per row would need another kind of batch for this model only, and leave most slots empty.
"""

from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.config import RecurrentConfig
from flax_transformer.models.parameters import with_axes
from flax_transformer.models.recurrent.cells import CELLS
from flax_transformer.ops.kernels import ops_for
from flax_transformer.ops.lstm import State
from flax_transformer.ops.recurrence import Loop, Multiply

# A kernel is g matrices side by side, each with its own fans.
xavier = nn.initializers.variance_scaling(
    1, "fan_avg", "uniform", in_axis=0, out_axis=2, batch_axis=1
)


def restart(state, begins: jax.Array, first):
    """Returns `state`, arrays (b,...), with `first` (zeros if None) where `begins` (b,) is true."""

    def choose(array, instead=0.0):
        where = begins.reshape(-1, *(1 for _ in array.shape[1:]))
        return jnp.where(where, instead, array)

    return jax.tree.map(choose, state) if first is None else jax.tree.map(choose, state, first)


def segment_begins(segments: jax.Array) -> jax.Array:
    """Returns whether another segment, or none, precedes each position: (b,t) to bool (b,t)."""
    return jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)), constant_values=True)


def segment_ends(segments: jax.Array) -> jax.Array:
    """Returns whether another segment, or none, follows each position: (b,t) to bool (b,t)."""
    return jnp.flip(segment_begins(jnp.flip(segments, axis=1)), axis=1)


class RecurrentLayer(nn.Module):
    """LSTM or GRU of `units` units, in one direction."""

    config: RecurrentConfig
    units: int

    def setup(self):
        cell = CELLS[self.config.cell]
        g, u = cell.num_gates, self.units

        def bias(key, shape, dtype=jnp.float32):
            return jnp.broadcast_to(jnp.array(cell.initial_bias, dtype)[:, None], shape)

        self.input = self.param("input", with_axes(xavier, "dgu"), (self.config.d_model, g, u))
        self.recurrent = self.param("recurrent", with_axes(xavier, "dgu"), (u, g, u))
        self.bias = self.param("bias", with_axes(bias, "gu"), (g, u))

    def from_input(self, x: jax.Array) -> jax.Array:
        """Returns what `x` (t,b,d) gives to the gates, (t,b,g,u) in float32, without the bias.

        One product serves all gates and positions.
        """
        chex.assert_axis_dimension(x, -1, self.config.d_model)
        einsum = ops_for(self.config).einsum
        return einsum("tbd,dgu->tbgu", x, self.input, out_dtype=jnp.float32)

    def __call__(
        self, x: jax.Array, begins: jax.Array, first: State | None = None, reverse: bool = False
    ) -> State:
        """Returns the states (t,b,u) after every position of `x` (t,b,d).

        Where `begins` (t,b) is true, the state before is that of `first` (t,b,u), or zero.
        """
        (t, b, _), u = x.shape, self.units
        chex.assert_shape(begins, (t, b))
        config, cell = self.config, CELLS[self.config.cell]
        products = (("recurrent", "bd,dgu->bgu"),)
        loop = Loop(products, jnp.dtype(config.compute_dtype), config.unroll_steps, reverse)
        nothing = (jnp.zeros((b, u), jnp.float32),) * cell.num_arrays
        weights, from_input = {"recurrent": self.recurrent}, self.from_input(x)
        addends = {"recurrent": from_input} if cell.additive else {}
        inputs = (None if cell.additive else from_input, begins, first)
        _, states = ops_for(config).scan_over_time(
            _Turn(config), loop, weights, addends, self.bias, nothing, inputs
        )
        chex.assert_shape(states, (t, b, u))
        return states


class _Turn(NamedTuple):
    """One turn of the loop, equal to another of the same settings."""

    config: RecurrentConfig

    def __call__(self, multiply: Multiply, bias, state: State, inputs):
        from_input, begins, first = inputs
        state = restart(state, begins, first)
        from_state = multiply("recurrent", state[0])
        from_input = bias[None] if from_input is None else from_input + bias[None]
        cell, ops = CELLS[self.config.cell], ops_for(self.config)
        state = cell.step(ops, from_input, from_state, state)
        return state, state
