"""The decoder: recurrent layers over the target, which look at the source at every position.

Letters: t target position, b batch, w beams (one in training), s source position, n two vectors
side by side, d width, g gates, u units.
"""

from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.config import RecurrentConfig
from flax_transformer.models.dropout import Dropout
from flax_transformer.models.parameters import output_init, with_axes
from flax_transformer.models.recurrent.attention import PRODUCTS, Attention, attend
from flax_transformer.models.recurrent.cells import CELLS
from flax_transformer.models.recurrent.encoder import Memory, first_states
from flax_transformer.models.recurrent.layer import (
    RecurrentLayer,
    restart,
    segment_begins,
    xavier,
)
from flax_transformer.models.tap import Tap
from flax_transformer.ops.kernels import ops_for
from flax_transformer.ops.lstm import State
from flax_transformer.ops.recurrence import (
    Loop,
    Multiply,
    Weights,
    multiplier,
)


class Carry(NamedTuple):
    """What one position of the target passes on to the next."""

    states: tuple[State, ...]
    """The state of each layer, (b,w,u)."""
    fed: jax.Array | None
    """With input feeding: the features of the position before, (b,w,d)."""
    coverage: jax.Array | None
    """With coverage: the sum of attention so far, (b,w,s)."""


class StepInput(NamedTuple):
    """What one position takes besides the carry."""

    from_input: jax.Array
    """What the embedded token gives to the first layer's gates, (b,w,g,u)."""
    mask: jax.Array
    """Source positions of the same pair, bool (b,w,s)."""
    dropout: tuple[jax.Array | float, ...]
    """Factors (b,w,d) on the input of each layer but the first, and on the features."""


class Outputs(NamedTuple):
    """What one position yields."""

    features: jax.Array
    """(b,w,d)."""
    weights: jax.Array | None
    """Attention to the source, (b,h,w,s); None where there is none, or nobody reads it."""
    coverage_loss: jax.Array | None
    """(b,w); None without coverage."""


def products(config: RecurrentConfig) -> dict[str, str]:
    """Returns the products that `step` takes, by the names of `Decoder.arrays`."""
    depth = config.num_decoder_layers
    found = {f"recurrent_{i}": "bwd,dgu->bwgu" for i in range(depth)}
    found |= {f"input_{i}": "bwd,dgu->bwgu" for i in range(1, depth)}
    if config.input_feeding:
        found["feed"] = "bwd,dgu->bwgu"
    if config.attends_to_source:
        found["combine"] = "bwnd,ndu->bwu"
    return found | PRODUCTS[config.attention]


def step(
    config: RecurrentConfig, multiply: Multiply, arrays: Weights, carry: Carry, inputs: StepInput
) -> tuple[Carry, Outputs]:
    """Computes s_t = f(y_(t-1), h~_(t-1), s_(t-1)) and h~_t = tanh(W_c [c_t; s_t]) of a position.

    multiply  `products`
    arrays    those of `Decoder.arrays` that are in no product

    Source: Luong et al. 2015, section 3, with input feeding as in 3.3.
    """
    ops, from_input = ops_for(config), inputs.from_input
    states: list[State] = []
    if config.input_feeding:
        assert carry.fed is not None
        from_input = from_input + multiply("feed", carry.fed)
    for i, state in enumerate(carry.states):
        if i:
            x = states[-1][0] * inputs.dropout[i - 1]
            from_input = multiply(f"input_{i}", x)
        from_input += arrays[f"bias_{i}"][None, None]
        from_state = multiply(f"recurrent_{i}", state[0])
        states.append(CELLS[config.cell].step(ops, from_input, from_state, state))
    s_t, weights, coverage, loss = states[-1][0], None, carry.coverage, None
    if not config.attends_to_source:
        features = s_t
    else:
        context, weights = attend(config, multiply, arrays, s_t, inputs.mask, coverage)
        features = _combine(multiply, context, s_t)
        if coverage is not None:
            loss = jnp.minimum(weights[:, 0], coverage).sum(axis=-1)
            coverage += weights[:, 0]
    features *= inputs.dropout[-1]
    fed = features if config.input_feeding else None
    return Carry(tuple(states), fed, coverage), Outputs(features, weights, loss)


def _combine(multiply: Multiply, context: jax.Array, state: jax.Array) -> jax.Array:
    """Returns h~_t = tanh(W_c [c_t; s_t]) (Luong et al. 2015, equation 5)."""
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
            self.feed = self.param("feed", with_axes(xavier, "dgu"), shape)
        if config.attends_to_source:
            self.attention = Attention(config)
            self.combine = self.param("combine", with_axes(output_init, "ndu"), (2, d, d))
            self.tap = Tap()
        self.dropout = [Dropout(config) for _ in range(config.num_decoder_layers)]

    def arrays(self, source: Weights) -> Weights:
        """Returns all arrays that `step` takes, by name; `source` is what `attend_init` returns."""
        found = dict(source)
        for i, layer in enumerate(self.layers):
            found[f"input_{i}"], found[f"recurrent_{i}"] = layer.input, layer.recurrent
            found[f"bias_{i}"] = layer.bias
        if self.config.input_feeding:
            found["feed"] = self.feed
        if self.config.attends_to_source:
            found |= {"combine": self.combine, **self.attention.parameters()}
        return found

    def attend_init(self, memory: Memory) -> Weights:
        """Returns what attention computes of the source once, arrays (b,s,...)."""
        return self.attention.attend_init(memory.states) if self.config.attends_to_source else {}

    def first_states(self, memory: Memory, segments: jax.Array) -> tuple[State, ...]:
        """Returns the states (t,b,u) in which the pair of each position begins; `segments` (b,t).

        These are the states in which the encoder's layers ended (Sutskever et al. 2014). Where the
        encoder has more or fewer layers, the top layers of both belong together.
        """
        more = len(memory.last) - len(self.layers)
        return tuple(
            first_states(self.config, memory.last[max(0, i + more)], segments)
            for i in range(len(self.layers))
        )

    def __call__(
        self, x: jax.Array, segments: jax.Array, memory: Memory, source_segments: jax.Array
    ) -> jax.Array:
        """Returns features (t,b,d) of embedded target inputs `x` (t,b,d), all positions at once.

        Adds the coverage loss to the collection "losses": the sum over t and i of
        min(alpha_ti, sum_(t'<t) alpha_t'i) (See et al. 2017, equation 12), times its weight.
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
            if outputs.weights is not None:
                self.tap(jnp.moveaxis(outputs.weights[:, :, :, 0], 0, 2))
            if outputs.coverage_loss is not None:
                losses = jnp.where(segments.T > 0, outputs.coverage_loss[:, :, 0], 0.0)
                self.sow("losses", "coverage", config.coverage_loss * losses.sum())
        chex.assert_shape(features, dims["tbd"])
        return features.astype(config.compute_dtype)

    def _layer_by_layer(self, x, segments, memory: Memory, mask) -> jax.Array:
        """Returns the features where no position waits for another's attention.

        Then the loops hold the layers alone.
        """
        begins = segment_begins(segments).T
        for i, (layer, first) in enumerate(
            zip(self.layers, self.first_states(memory, segments), strict=True)
        ):
            x = self.dropout[i - 1](x) if i else x
            x, *_ = layer(x, begins, first)
        if self.config.attends_to_source:
            # The axis of the beams holds all t.
            multiply = self._multiply(arrays := self.arrays(self.attend_init(memory)))
            states = jnp.moveaxis(x, 0, 1)
            context, weights = attend(self.config, multiply, arrays, states, mask)
            self.tap(weights)
            x = jnp.moveaxis(_combine(multiply, context, states), 0, 1)
        return self.dropout[-1](x)

    def _multiply(self, arrays: Weights) -> Multiply:
        return multiplier(products(self.config), arrays, ops_for(self.config).einsum)

    def position_by_position(self, x, segments, memory: Memory, mask) -> Outputs:
        """Returns `Outputs` with every array stacked over t, computed as the papers have it.

        Weights are there only where they are read. `mask` bool (b,t,s) says which source positions
        are of the same pair; the other arguments are those of a call.
        """
        config, (t, b, d) = self.config, x.shape
        arrays, named_products = self.arrays(self.attend_init(memory)), products(config)
        weights = {name: arrays[name] for name in named_products}
        constants = {name: arrays[name] for name in arrays if name not in named_products}
        first = jax.tree.map(lambda a: a[:, :, None], self.first_states(memory, segments))
        start = self.start(jax.tree.map(lambda a: jnp.zeros_like(a[0]), first), mask.shape[2])
        step_inputs = StepInput(
            self.layers[0].from_input(x)[:, :, None],
            jnp.moveaxis(mask, 1, 0)[:, :, None],
            tuple(dropout(jnp.ones((t, b, 1, d))) for dropout in self.dropout),
        )
        inputs = (step_inputs, segment_begins(segments).T, first)
        loop = Loop(
            tuple(named_products.items()), jnp.dtype(config.compute_dtype), config.unroll_steps
        )
        del constants["input_0"]  # all positions have gone through it
        turn = _Turn(config, keep_weights=config.attends_to_source and self.tap.is_read())
        scan = ops_for(config).scan_over_time
        _, outputs = scan(turn, loop, weights, {}, constants, start, inputs)
        return outputs

    def start(self, states: tuple[State, ...], source_length: int) -> Carry:
        """Returns the carry before the first position; `states` (b,w,u)."""
        b, w, d = states[0][0].shape
        fed = jnp.zeros((b, w, d)) if self.config.input_feeding else None
        coverage = jnp.zeros((b, w, source_length)) if self.config.coverage else None
        return Carry(states, fed, coverage)

    def start_cache(self, memory: Memory, mask: jax.Array, beam_size: int) -> dict:
        """Returns the cache for sentences that are alone in their rows.

        mask    (b,s), true for tokens
        leaves  (1,b,w,...), those that all beams share (1,b,1,...)
        """
        b, s = mask.shape

        def copy(array):
            return jnp.broadcast_to(array[0][:, None], (b, beam_size, array.shape[-1]))

        states = jax.tree.map(copy, self.first_states(memory, jnp.ones((b, 1), jnp.int32)))
        return {
            "carry": jax.tree.map(lambda a: a[None], self.start(states, s)),
            "source": {name: a[None, :, None] for name, a in self.attend_init(memory).items()},
            "mask": mask[None, :, None],
        }

    def decode_step(self, x: jax.Array, cache: dict) -> tuple[Outputs, dict]:
        """Decodes one position of every beam, `x` (b,w,d)."""
        arrays = self.arrays({name: a[0, :, 0] for name, a in cache["source"].items()})
        mask = cache["mask"][0]
        inputs = StepInput(
            self.layers[0].from_input(x),
            jnp.broadcast_to(mask, (*x.shape[:2], mask.shape[-1])),
            (1.0,) * len(self.layers),
        )
        carry = jax.tree.map(lambda a: a[0], cache["carry"])
        carry, outputs = step(self.config, self._multiply(arrays), arrays, carry, inputs)
        return outputs, cache | {"carry": jax.tree.map(lambda a: a[None], carry)}


class _Turn(NamedTuple):
    """One turn of the loop over packed rows, equal to another of the same settings."""

    config: RecurrentConfig
    keep_weights: bool

    def __call__(self, multiply: Multiply, constants: Weights, carry: Carry, inputs):
        own, begins, first = inputs
        carry = restart_pair(carry, begins, first)
        carry, outputs = step(self.config, multiply, constants, carry, own)
        return carry, outputs if self.keep_weights else outputs._replace(weights=None)


def restart_pair(carry: Carry, begins: jax.Array, first: tuple[State, ...]) -> Carry:
    """Returns `carry`; where a pair `begins`, bool (b,), its `first` states and zeros instead."""
    states = restart(carry.states, begins, first)
    return Carry(states, *restart(tuple(carry[1:]), begins, None))
