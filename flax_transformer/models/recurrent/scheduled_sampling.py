"""Scheduled sampling (Bengio et al. 2015): training on what the model itself would have written.

A first pass over the target finds the tokens to feed. It has no dropout in the decoder, and no
gradient, since none goes through the choice of a token. Training is then teacher forcing with those
tokens, layer by layer where the model allows it.
"""

import jax
import jax.numpy as jnp

from flax_transformer.models.recurrent.decoder import (
    Decoder,
    StepInput,
    products,
    restart_pair,
    step,
)
from flax_transformer.models.recurrent.encoder import Memory
from flax_transformer.models.recurrent.layer import segment_begins
from flax_transformer.ops.kernels import ops_for
from flax_transformer.ops.recurrence import multiplier


def sampled_inputs(
    decoder: Decoder, table: jax.Array, batch, memory: Memory, forced: jax.Array
) -> jax.Array:
    """Returns target inputs (b,t): those of `batch` where forced, elsewhere the model's own choice.

    That is the most probable token after the inputs before. A pair's first input is always the true
    one.

    table   of the embedding, (v,d)
    forced  bool (b,t)
    """
    config, dtype = decoder.config, jnp.dtype(decoder.config.compute_dtype)
    segments, source_segments = batch.target_segments, batch.source_segments
    table, arrays, first = jax.lax.stop_gradient(
        (table, decoder.arrays(decoder.attend_init(memory)), decoder.first_states(memory, segments))
    )
    named_products = products(config) | {"input_0": "bwd,dgu->bwgu"}
    einsum = ops_for(config).einsum
    multiply = multiplier(named_products, arrays, einsum)
    first = jax.tree.map(lambda a: a[:, :, None], first)
    nothing = jax.tree.map(lambda a: jnp.zeros_like(a[0]), first)

    def write(carry, inputs):
        carry, own = carry
        true, is_forced, segment, begins, first = inputs
        ids = jnp.where(is_forced | begins, true, own)
        x = (table[ids] * config.d_model**0.5).astype(dtype)[:, None]
        from_input = multiply("input_0", x)
        mask = (segment[:, None] == source_segments)[:, None]
        inputs = StepInput(from_input, mask, (1.0,) * config.num_decoder_layers)
        carry = restart_pair(carry, begins, first)
        carry, outputs = step(config, multiply, arrays, carry, inputs)
        logits = einsum("bwd,vd->bwv", outputs.features, table, out_dtype=jnp.float32)
        return (carry, jnp.argmax(logits[:, 0], axis=-1).astype(ids.dtype)), ids

    start = (decoder.start(nothing, source_segments.shape[1]), jnp.zeros_like(segments[:, 0]))
    step_inputs = (batch.target_inputs, forced, segments, segment_begins(segments))
    inputs = (*(array.T for array in step_inputs), first)
    return jax.lax.scan(write, start, inputs)[1].T
