"""The encoder: recurrent layers over the source, in one direction or both.

Letters: s source position, b batch, n pair of a row, d width, u units of a layer.
"""

from functools import partial
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.config import RecurrentConfig
from flax_transformer.models.dropout import Dropout
from flax_transformer.models.recurrent.layer import RecurrentLayer, segment_begins, segment_ends
from flax_transformer.ops.kernels import ops_for
from flax_transformer.ops.lstm import State


class Memory(NamedTuple):
    """All that a decoder gets of the source."""

    states: jax.Array
    """h_i, (b,s,d): what attention looks at."""
    last: tuple[State, ...]
    """For each layer the state after each pair of a row, (b,n,d), pair 1 first: where a decoder
    starts."""


class Encoder(nn.Module):
    """`num_encoder_layers` layers, each fed with the one below.

    In a bidirectional encoder (Schuster and Paliwal 1997) each direction has d/2 units. So both
    together are as wide as the decoder's states and start them (as in OpenNMT, Klein et al. 2017).
    """

    config: RecurrentConfig

    def setup(self):
        config = self.config
        directions = ["forward", "backward"] if config.bidirectional else ["forward"]
        units = config.d_model // len(directions)
        self.layers = [
            [RecurrentLayer(config, units, name=f"layer_{i}_{each}") for each in directions]
            for i in range(config.num_encoder_layers)
        ]
        self.dropout = [Dropout(config) for _ in range(config.num_encoder_layers - 1)]

    def __call__(self, x: jax.Array, segments: jax.Array) -> Memory:
        """Encodes the embedded source `x` (s,b,d), with `segments` (b,s)."""
        dims = chex.Dimensions(s=x.shape[0], b=x.shape[1], d=self.config.d_model)
        chex.assert_shape(x, dims["sbd"])
        chex.assert_shape(segments, dims["bs"])
        # Read backwards, a pair begins at its end.
        borders = [segment_begins(segments), segment_ends(segments)]
        last = []
        for i, directions in enumerate(self.layers):
            states = [
                layer(x, begins.T, reverse=bool(backward))
                for backward, (layer, begins) in enumerate(zip(directions, borders, strict=False))
            ]
            last.append(_last_states(self.config, states, segments, borders))
            x = jnp.concatenate([state[0] for state in states], axis=-1)
            if i < len(self.dropout):
                x = self.dropout[i](x)
        memory = Memory(jnp.moveaxis(x, 0, 1).astype(self.config.compute_dtype), tuple(last))
        chex.assert_shape(memory.states, dims["bsd"])
        return memory


def _last_states(
    config: RecurrentConfig, states: list[State], segments: jax.Array, borders: list[jax.Array]
) -> State:
    """Returns the states (b,n,d) in which each direction leaves each pair, side by side.

    `states` are (s,b,u) for each direction. They are taken by a product with zeros and ones rather
    than by a gather, whose gradient would be a scatter.
    """
    numbers = 1 + jnp.arange(segments.shape[1])
    of_pair = segments[:, None, :] == numbers[None, :, None]
    einsum = partial(ops_for(config).einsum, dtype=jnp.float32)
    found = []
    for state, leaves in zip(states, reversed(borders), strict=False):
        chosen = (of_pair & leaves[:, None, :]).astype(jnp.float32)
        found.append([einsum("bns,sbu->bnu", chosen, array) for array in state])
    return tuple(jnp.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))


def first_states(config: RecurrentConfig, last: State, segments: jax.Array) -> State:
    """Returns the state (t,b,d) in which the source of each position's pair ended.

    segments  (b,t)
    """
    numbers = 1 + jnp.arange(last[0].shape[1])
    chosen = (segments[:, :, None] == numbers[None, None, :]).astype(jnp.float32)
    einsum = partial(ops_for(config).einsum, dtype=jnp.float32)
    return tuple(einsum("btn,bnd->tbd", chosen, array) for array in last)
