"""The heads of a Transformer one by one: masked, or taken out for good.

Letters: l layers, h heads, m heads left, k width of a head, d model.

    masks = all_heads(config)
    masks["cross"][0, 2] = 0
    params = mask_heads(params, masks)       of the same shapes: nothing is compiled again
    params = keep_heads(params, kept)        fewer parameters, for a model with_heads(config, kept)
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.config import TransformerConfig

_PLACES = {
    "encoder": ("encoder", "attention"),
    "decoder": ("decoder", "self_attention"),
    "cross": ("decoder", "cross_attention"),
}
"""Where the parameters of each attention lie, by its name; those of all layers are stacked."""

_HEADS_AXIS = {"query": 2, "key": 2, "value": 2, "output": 1}  # (l,d,h,k) and (l,h,k,d)


def all_heads(model: TransformerConfig) -> dict[str, np.ndarray]:
    """Returns a mask (l,h) of ones for each attention: encoder, decoder and cross."""
    encoder, decoder = model.num_encoder_layers, model.num_decoder_layers
    shapes = {
        "encoder": (encoder, model.encoder_heads or model.num_heads),
        "decoder": (decoder, model.decoder_heads or model.num_heads),
        "cross": (decoder, model.cross_heads or model.num_heads),
    }
    return {kind: np.ones(shape, np.float32) for kind, shape in shapes.items()}


def mask_heads(params: Any, masks: Mapping[str, jax.Array | np.ndarray]) -> Any:
    """Returns `params` with which each head adds `masks` (l,h) times what it added before.

    That is exact: a head reaches what comes after it through its rows of the output matrix alone,
    and no bias is added there.
    """
    for kind, mask in masks.items():
        output = _at(params, kind)["output"]  # lhkd
        params = _replace(params, _PLACES[kind], {"output": output * mask[:, :, None, None]})
    return params


def keep_heads(params: Any, kept: Mapping[str, np.ndarray]) -> Any:
    """Returns `params` of a model that has only the heads `kept` (l,m) of each attention."""
    for kind, heads in kept.items():
        left = {
            name: jnp.take_along_axis(kernel, _along(heads, axis), axis)
            for name, kernel in _at(params, kind).items()
            for axis in [_HEADS_AXIS[name]]
        }
        params = _replace(params, _PLACES[kind], left)
    return params


def _along(heads: np.ndarray, axis: int) -> np.ndarray:
    """`heads` (l,m) for kernels of four axes, of which `axis` is that of the heads."""
    return np.expand_dims(heads, tuple({1, 2, 3} - {axis}))


def with_heads(model: TransformerConfig, kept: Mapping[str, np.ndarray]) -> TransformerConfig:
    """Returns the settings of that model."""
    counts = {kind: heads.shape[1] for kind, heads in kept.items()}
    left = {
        f"{kind}_heads": None if count == model.num_heads else count
        for kind, count in counts.items()
    }
    return dataclasses.replace(model, **left)


def _at(params: Any, kind: str) -> Any:
    for name in _PLACES[kind]:
        params = params[name]
    return params


def _replace(params: Any, path: tuple[str, ...], new: dict[str, Any]) -> Any:
    """Returns `params` with the leaves `new` at `path` in place of those of the same names."""
    if not path:
        return params | new
    return params | {path[0]: _replace(params[path[0]], path[1:], new)}
