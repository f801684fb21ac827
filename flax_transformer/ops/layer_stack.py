"""Stacks of equal layers: compiled once, with a choice of what their backward pass keeps."""

from typing import Any

import flax.linen as nn
import jax
from jax.extend.core import Primitive

from flax_transformer.config import TransformerConfig
from flax_transformer.ops.attention_cudnn import FORWARD_CALL
from flax_transformer.ops.einsum import MATRIX_PRODUCT
from flax_transformer.ops.relu import ACTIVATION
from flax_transformer.parallel import collectives

TAPPED = "attention_weights"
"""Collection into which each layer sows its attention weights, if they are read; else empty."""


def _is_attention_of_cudnn(primitive: Primitive, *_: Any, **__: Any) -> bool:
    return primitive.name == FORWARD_CALL


_SAVED = {
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.save_only_these_names(MATRIX_PRODUCT, ACTIVATION),
        _is_attention_of_cudnn,
    ),
    "everything": jax.checkpoint_policies.nothing_saveable,
}


def stack_layers_reference(
    layer, config: TransformerConfig, num_layers: int, num_inputs: int, unroll: int = 1
) -> nn.Module:
    """Does what `stack_layers` does, as a plain loop."""
    return nn.scan(
        layer,
        variable_axes={"params": 0, TAPPED: 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(nn.broadcast,) * num_inputs,
        length=num_layers,
        unroll=unroll,
        metadata_params={nn.PARTITION_NAME: "l"},
    )(config)


def stack_layers(layer, config: TransformerConfig, num_layers: int, num_inputs: int) -> nn.Module:
    """Makes one module of `num_layers` copies of `layer`, with their parameters stacked (l,...).

    Replaces (`stack_layers_reference`, with the parameters of layer i in place of `layer`'s):

        for i in range(num_layers):
            x, y[i] = layer(config)(x, *inputs)

    The loop is compiled once, with `config.unroll_layers` layers per turn, and keeps for the
    backward pass what `config.remat` says. The `num_inputs` inputs after the first are the same for
    all layers. They must be passed by position: nn.scan drops keyword arguments.
    """
    by_default = num_layers if collectives.platform() == "gpu" else 1
    layers_per_turn = min(config.unroll_layers or by_default, num_layers)
    if config.remat != "nothing":
        # Between two turns of a loop XLA cannot find what is computed twice. Within a turn it would
        # find and keep it, which undoes remat.
        prevent_cse = layers_per_turn > 1
        layer = nn.remat(layer, policy=_SAVED[config.remat], prevent_cse=prevent_cse)
    return stack_layers_reference(layer, config, num_layers, num_inputs, layers_per_turn)
