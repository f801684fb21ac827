"""The one place that chooses how a model computes: `--model.kernels`.

Every fast function of this folder stands beside its reference, the plain lines that it replaces.
Both take the same arguments, and their results differ by rounding alone.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flax_transformer.config import RecurrentConfig, TransformerConfig
from flax_transformer.ops import beam_cache
from flax_transformer.ops.add_bias import add_bias, add_bias_reference
from flax_transformer.ops.attention import attention, attention_reference
from flax_transformer.ops.cross_entropy import LossSums, cross_entropy, cross_entropy_reference
from flax_transformer.ops.dropout import dropout, dropout_reference
from flax_transformer.ops.einsum import einsum, einsum_reference
from flax_transformer.ops.layer_norm import layer_norm, layer_norm_reference
from flax_transformer.ops.layer_stack import stack_layers, stack_layers_reference
from flax_transformer.ops.lookup import lookup, lookup_reference
from flax_transformer.ops.lstm import State, lstm, lstm_reference
from flax_transformer.ops.recurrence import scan_over_time, scan_over_time_reference
from flax_transformer.ops.relu import relu


class Ops(NamedTuple):
    """The functions that a model is made of; each is described where it is defined."""

    einsum: Callable[..., jax.Array]
    add_bias: Callable[..., jax.Array]
    relu: Callable[..., jax.Array]
    layer_norm: Callable[..., jax.Array]
    dropout: Callable[..., jax.Array]
    lookup: Callable[..., jax.Array]
    attention: Callable[..., jax.Array]
    stack_layers: Callable[..., Any]
    attend_to_prefix: Callable[..., jax.Array]
    attend_to_source: Callable[..., tuple[jax.Array, jax.Array]]
    lstm: Callable[..., State]
    scan_over_time: Callable[..., Any]
    recompute: Callable[..., Callable]
    """(function) -> that function, whose gradient computes inner arrays again and keeps none."""
    cross_entropy: Callable[..., LossSums]


FAST = Ops(
    einsum=einsum,
    add_bias=add_bias,
    relu=relu,
    layer_norm=layer_norm,
    dropout=dropout,
    lookup=lookup,
    attention=attention,
    stack_layers=stack_layers,
    attend_to_prefix=beam_cache.attend_to_prefix,
    attend_to_source=beam_cache.attend_to_source,
    lstm=lstm,
    scan_over_time=scan_over_time,
    recompute=jax.checkpoint,
    cross_entropy=cross_entropy,
)

REFERENCE = Ops(
    einsum=einsum_reference,
    add_bias=add_bias_reference,
    relu=jax.nn.relu,
    layer_norm=layer_norm_reference,
    dropout=dropout_reference,
    lookup=lookup_reference,
    attention=attention_reference,
    stack_layers=stack_layers_reference,
    attend_to_prefix=beam_cache.attend_to_prefix_reference,
    attend_to_source=beam_cache.attend_to_source_reference,
    lstm=lstm_reference,
    scan_over_time=scan_over_time_reference,
    recompute=lambda function: function,
    cross_entropy=cross_entropy_reference,
)


@functools.cache
def ops_for(config: TransformerConfig | RecurrentConfig) -> Ops:
    """Returns the functions that `config` chooses, with its compute type where they take one."""
    chosen = FAST if config.kernels == "fast" else REFERENCE
    dtype = jnp.dtype(config.compute_dtype)
    return chosen._replace(
        einsum=functools.partial(chosen.einsum, dtype=dtype),
        layer_norm=functools.partial(chosen.layer_norm, dtype=dtype),
        cross_entropy=functools.partial(chosen.cross_entropy, dtype=dtype),
    )
