"""The decoder: recurrent layers over the target, which look at the source at every position.

Letters: t target position, b batch, w beams (one in training), s source position, n two vectors
beside each other, d width, g gates, u units.
"""

from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.config import RecurrentConfig
from flax_transformer.models.parameters import named
from flax_transformer.models.recurrent.attention import PRODUCTS, Attention, attend
from flax_transformer.models.recurrent.cells import CELLS, State
from flax_transformer.models.recurrent.encoder import Memory, first_states
from flax_transformer.models.recurrent.layer import (
    RecurrentLayer,
    restart,
    segment_begins,
    xavier,
)
from flax_transformer.ops.dropout import Dropout
from flax_transformer.ops.recurrence import (
    Loop,
    Multiply,
    Weights,
    multiplier,
    scan_over_time,
)


class Carry(NamedTuple):
    """What one position of the target leaves to the next."""

    states: tuple[State, ...]
    """Of each layer, (b,w,u)."""
    fed: jax.Array | None
    """With input feeding: the features of the position before, (b,w,d)."""
    coverage: jax.Array | None
    """With coverage: the sum of attention so far, (b,w,s)."""


class Column(NamedTuple):
    """What one position takes besides."""

    from_input: jax.Array
    """What the embedded token gives to the first layer's gates, (b,w,g,u)."""
    mask: jax.Array
    """Source positions of the same pair, bool (b,w,s)."""
    dropout: tuple[jax.Array | float, ...]
    """Factors (b,w,d) on the input of each layer but the first, and on the features."""


class Outputs(NamedTuple):
    """What one position yields: features (b,w,d), attention (b,w,s), coverage loss (b,w)."""

    features: jax.Array
    attention: jax.Array | None
    coverage_loss: jax.Array | None


def products(config: RecurrentConfig) -> dict[str, str]:
    """The products that `advance` takes, by the names of `Decoder.arrays`."""
    depth = config.num_decoder_layers
    found = {f"recurrent_{i}": "bwd,dgu->bwgu" for i in range(depth)}
    found |= {f"input_{i}": "bwd,dgu->bwgu" for i in range(1, depth)}
    if config.input_feeding:
        found["feed"] = "bwd,dgu->bwgu"
    if config.attends_to_source:
        found["combine"] = "bwnd,ndu->bwu"
    return found | PRODUCTS[config.attention]


def advance(
    config: RecurrentConfig, multiply: Multiply, arrays: Weights, carry: Carry, column: Column
) -> tuple[Carry, Outputs]:
    """One position: s_t = f(y_(t-1), h~_(t-1), s_(t-1)) and h~_t = tanh(W_c [c_t; s_t])
    (Luong et al. 2015, section 3, with input feeding as in 3.3).

    multiply: `products`. arrays: those of `Decoder.arrays` that are in no product.
    """
    from_input = column.from_input
    states: list[State] = []
    if config.input_feeding:
        assert carry.fed is not None
        from_input = from_input + multiply("feed", carry.fed)
    for i, state in enumerate(carry.states):
        if i:
            x = states[-1][0] * column.dropout[i - 1]
            from_input = multiply(f"input_{i}", x)
        from_input += arrays[f"bias_{i}"][None, None]
        from_state = multiply(f"recurrent_{i}", state[0])
        states.append(CELLS[config.cell].advance(from_input, from_state, state))
    s_t, attention, coverage, loss = states[-1][0], None, carry.coverage, None
    if not config.attends_to_source:
        features = s_t
    else:
        context, attention = attend(config.attention, multiply, arrays, s_t, column.mask, coverage)
        features = _combine(multiply, context, s_t)
        if coverage is not None:
            loss = jnp.minimum(attention, coverage).sum(axis=-1)
            coverage += attention
    features *= column.dropout[-1]
    fed = features if config.input_feeding else None
    return Carry(tuple(states), fed, coverage), Outputs(features, attention, loss)


def _combine(multiply: Multiply, context: jax.Array, state: jax.Array) -> jax.Array:
    """h~_t = tanh(W_c [c_t; s_t]) (Luong et al. 2015, equation 5)."""
    return jnp.tanh(multiply("combine", jnp.stack([context, state], axis=2)))


class Decoder(nn.Module):
    """`num_decoder_layers` layers and an attention."""

    config: RecurrentConfig

    def setup(self):
        config, d = self.config, self.config.d_model
        self.layers = [
            RecurrentLayer(config, d, name=f"layer_{i}") for i in range(config.num_decoder_layers)
        ]
        if config.input_feeding:
            shape = (d, CELLS[config.cell].num_gates, d)
            self.feed = self.param("feed", named(xavier, "dgu"), shape)
        if config.attends_to_source:
            self.attention = Attention(config)
            join = nn.initializers.variance_scaling(1, "fan_avg", "uniform", (0, 1), 2)
            self.combine = self.param("combine", named(join, "ndu"), (2, d, d))
        self.dropout = [Dropout(config.dropout) for _ in range(config.num_decoder_layers)]

    def arrays(self, of_source: Weights) -> Weights:
        """All that `advance` takes, by name; `of_source`: of `of_source`."""
        found = dict(of_source)
        for i, layer in enumerate(self.layers):
            found[f"input_{i}"], found[f"recurrent_{i}"] = layer.input, layer.recurrent
            found[f"bias_{i}"] = layer.bias
        if self.config.input_feeding:
            found["feed"] = self.feed
        if self.config.attends_to_source:
            found |= {"combine": self.combine, **self.attention.parameters()}
        return found

    def of_source(self, memory: Memory) -> Weights:
        """What attention makes of the source once, arrays (b,s,...)."""
        return self.attention.of_source(memory.states) if self.config.attends_to_source else {}

    def first(self, memory: Memory, segments: jax.Array) -> tuple[State, ...]:
        """For each position of `segments` (b,t) the states (t,b,u) in which its pair begins: those
        in which the encoder's layers ended (Sutskever et al. 2014); where it has more or fewer
        layers, the top layers of both belong together."""
        more = len(memory.last) - len(self.layers)
        return tuple(
            first_states(memory.last[max(0, i + more)], segments) for i in range(len(self.layers))
        )

    def __call__(
        self, x: jax.Array, segments: jax.Array, memory: Memory, source_segments: jax.Array
    ) -> jax.Array:
        """Features (t,b,d) of the embedded target inputs `x` (t,b,d), all of them at a time.

        Adds the coverage loss to the collection "losses": the sum over t and i of
        min(alpha_ti, sum_(t'<t) alpha_t'i) (See et al. 2017, equation 12), weighted.
        """
        dims = chex.Dimensions(t=x.shape[0], b=x.shape[1], d=self.config.d_model)
        dims["s"] = source_segments.shape[1:]
        chex.assert_shape(x, dims["tbd"])
        chex.assert_shape(segments, dims["bt"])
        chex.assert_shape(source_segments, dims["bs"])
        config = self.config
        mask = segments[:, :, None] == source_segments[:, None, :]
        if not (config.input_feeding or config.coverage or config.attention == "concat"):
            features = self._layer_by_layer(x, segments, memory, mask)
        else:
            outputs = self.position_by_position(x, segments, memory, mask)
            features = outputs.features[:, :, 0]
            if outputs.coverage_loss is not None:
                losses = jnp.where(segments.T > 0, outputs.coverage_loss[:, :, 0], 0.0)
                self.sow("losses", "coverage", config.coverage_loss * losses.sum())
        chex.assert_shape(features, dims["tbd"])
        return features.astype(config.compute_dtype)

    def _layer_by_layer(self, x, segments, memory: Memory, mask) -> jax.Array:
        """Where no position waits for another's attention, the loops hold the layers alone."""
        begins = segment_begins(segments).T
        for i, (layer, first) in enumerate(
            zip(self.layers, self.first(memory, segments), strict=True)
        ):
            x = self.dropout[i - 1](x) if i else x
            x, *_ = layer(x, begins, first)
        if self.config.attends_to_source:
            # All t stand where beams stand.
            multiply = self._multiply(arrays := self.arrays(self.of_source(memory)))
            states = jnp.moveaxis(x, 0, 1)
            context, _ = attend(self.config.attention, multiply, arrays, states, mask)
            x = jnp.moveaxis(_combine(multiply, context, states), 0, 1)
        return self.dropout[-1](x)

    def _multiply(self, arrays: Weights) -> Multiply:
        return multiplier(products(self.config), arrays, jnp.dtype(self.config.compute_dtype))

    def position_by_position(self, x, segments, memory: Memory, mask) -> Outputs:
        """As the papers have it, with every array of `Outputs` stacked over t.

        `mask` bool (b,t,s): which source positions are of the same pair; the others as in a call.
        """
        config, (t, b, d) = self.config, x.shape
        arrays, named_products = self.arrays(self.of_source(memory)), products(config)
        weights = {name: arrays[name] for name in named_products}
        constants = {name: arrays[name] for name in arrays if name not in named_products}
        first = jax.tree.map(lambda a: a[:, :, None], self.first(memory, segments))
        start = self.start(jax.tree.map(lambda a: jnp.zeros_like(a[0]), first), mask.shape[2])
        columns = Column(
            self.layers[0].from_input(x)[:, :, None],
            jnp.moveaxis(mask, 1, 0)[:, :, None],
            tuple(dropout(jnp.ones((t, b, 1, d))) for dropout in self.dropout),
        )
        inputs = (columns, segment_begins(segments).T, first)
        loop = Loop(
            tuple(named_products.items()), jnp.dtype(config.compute_dtype), config.unroll_steps
        )
        del constants["input_0"]  # all positions have gone through it
        _, outputs = scan_over_time(_Turn(config), loop, weights, {}, constants, start, inputs)
        return outputs

    def start(self, states: tuple[State, ...], source_length: int) -> Carry:
        """Before the first position; `states` (b,w,u)."""
        b, w, d = states[0][0].shape
        fed = jnp.zeros((b, w, d)) if self.config.input_feeding else None
        coverage = jnp.zeros((b, w, source_length)) if self.config.coverage else None
        return Carry(states, fed, coverage)

    def start_cache(self, memory: Memory, mask: jax.Array, beam_size: int) -> dict:
        """For sentences alone in their rows; `mask` (b,s), true for tokens. Leaves are (1,b,w,...),
        those that all beams share (1,b,1,...)."""
        b, s = mask.shape

        def copy(array):
            return jnp.broadcast_to(array[0][:, None], (b, beam_size, array.shape[-1]))

        states = jax.tree.map(copy, self.first(memory, jnp.ones((b, 1), jnp.int32)))
        return {
            "carry": jax.tree.map(lambda a: a[None], self.start(states, s)),
            "source": {name: a[None, :, None] for name, a in self.of_source(memory).items()},
            "mask": mask[None, :, None],
        }

    def decode_step(self, x: jax.Array, cache: dict) -> tuple[Outputs, dict]:
        """One position of every beam, `x` (b,w,d)."""
        arrays = self.arrays({name: a[0, :, 0] for name, a in cache["source"].items()})
        mask = cache["mask"][0]
        column = Column(
            self.layers[0].from_input(x),
            jnp.broadcast_to(mask, (*x.shape[:2], mask.shape[-1])),
            (1.0,) * len(self.layers),
        )
        carry = jax.tree.map(lambda a: a[0], cache["carry"])
        carry, outputs = advance(self.config, self._multiply(arrays), arrays, carry, column)
        return outputs, cache | {"carry": jax.tree.map(lambda a: a[None], carry)}


class _Turn(NamedTuple):
    """One turn of the loop over packed rows, equal to another of the same settings."""

    config: RecurrentConfig

    def __call__(self, multiply: Multiply, constants: Weights, carry: Carry, inputs):
        column, begins, first = inputs
        carry = restart_pair(carry, begins, first)
        return advance(self.config, multiply, constants, carry, column)


def restart_pair(carry: Carry, begins: jax.Array, first: tuple[State, ...]) -> Carry:
    """`carry`, but where a pair begins, bool (b,), its `first` states and nothing else."""
    states = restart(carry.states, begins, first)
    return Carry(states, *restart(tuple(carry[1:]), begins, None))
