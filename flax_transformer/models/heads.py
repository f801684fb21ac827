"""The heads of a Transformer one by one: masked, or taken out for good.

Letters: l layers, h heads, m slots for the heads left, k width of a head, d model.

    masks = all_heads(params)
    masks["cross"][0, 2] = 0
    params = mask_heads(params, masks)       of the same shapes: nothing is compiled again
    params = keep_heads(params, masks)       fewer parameters, for a model with_heads(config, masks)
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


def all_heads(params: Any) -> dict[str, np.ndarray]:
    """Returns a mask (l,h) for each attention: encoder, decoder and cross.

    It is 1 for a head, and 0 for a slot that has held none since a pruning.
    """
    outputs = {kind: np.asarray(_at(params, kind)["output"]) for kind in _PLACES}  # lhkd
    return {
        kind: np.any(output != 0, axis=(2, 3)).astype(np.float32)
        for kind, output in outputs.items()
    }


def mask_heads(params: Any, masks: Mapping[str, jax.Array | np.ndarray]) -> Any:
    """Returns `params` with which each head adds `masks` (l,h) times what it added before.

    That is exact: a head reaches what comes after it through its rows of the output matrix alone.
    A bias that is added there belongs to no head.
    """
    for kind, mask in masks.items():
        output = _at(params, kind)["output"]  # lhkd
        params = _replace(params, _PLACES[kind], {"output": output * mask[:, :, None, None]})
    return params


def keep_heads(params: Any, masks: Mapping[str, np.ndarray]) -> Any:
    """Returns `params` without the heads whose masks (l,h) are 0, for a model `with_heads(masks)`.

    Layers are stacked, so each attention keeps as many slots as its fullest layer has heads. Where
    a layer has fewer, the last slots are zeros: they add nothing, and as their gradient is 0 they
    stay so.
    """
    for kind, mask in masks.items():
        slots = np.argsort(-mask, axis=1, stable=True)[:, : _slots(mask)]  # lm
        filled = np.take_along_axis(mask, slots, axis=1)

        def take(leaf, axis, slots=slots, filled=filled):
            taken = jnp.take_along_axis(leaf, _along(slots, axis, leaf.ndim), axis)
            return taken * _along(filled, axis, leaf.ndim)

        attention = _at(params, kind)
        left = {name: take(attention[name], axis) for name, axis in _HEADS_AXIS.items()}
        if biases := attention.get("bias"):
            left["bias"] = biases | {
                name: take(biases[name], 1)  # lhk
                for name in ("query", "key", "value")
            }
        params = _replace(params, _PLACES[kind], left)
    return params


def with_heads(model: TransformerConfig, masks: Mapping[str, np.ndarray]) -> TransformerConfig:
    """Returns the settings of a model with slots for the heads whose masks (l,h) are not 0."""
    slots = {kind: _slots(mask) for kind, mask in masks.items()}
    left = {kind: None if count == model.num_heads else count for kind, count in slots.items()}
    return dataclasses.replace(
        model,
        encoder_heads=left["encoder"],
        decoder_heads=left["decoder"],
        cross_heads=left["cross"],
    )


def _slots(mask: np.ndarray) -> int:
    """Heads of the layer with the most of them, and at least one."""
    return max(int(np.count_nonzero(mask, axis=1).max()), 1)


def _along(array: np.ndarray, axis: int, num_axes: int) -> np.ndarray:
    """`array` (l,m) for leaves of `num_axes`, of which `axis` is that of the heads."""
    return np.expand_dims(array, tuple({*range(1, num_axes)} - {axis}))


def _at(params: Any, kind: str) -> Any:
    for name in _PLACES[kind]:
        params = params[name]
    return params


def _replace(params: Any, path: tuple[str, ...], new: dict[str, Any]) -> Any:
    """Returns `params` with the leaves `new` at `path` in place of those of the same names."""
    if not path:
        return params | new
    return params | {path[0]: _replace(params[path[0]], path[1:], new)}
