"""Our parameters under the names of Hugging Face's Marian and M2M-100, and in their layout.

Both keep a projection as (output, input), heads side by side, where ours has (d,h,k) and (h,k,d).
Both have sines in the first half of a vector and cosines in the second, where ours takes turns: so
every axis of width d is reordered. All of it moves numbers and computes none.

Letters: l layers, d model, h heads, k head width, f feed-forward, v vocabulary.
"""

import numpy as np

_PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
_ATTENTIONS = {
    "attention": "self_attn",
    "self_attention": "self_attn",
    "cross_attention": "encoder_attn",
}
_NORMS = {
    "attention_residual": "self_attn_layer_norm",
    "self_residual": "self_attn_layer_norm",
    "cross_residual": "encoder_attn_layer_norm",
    "feed_forward_residual": "final_layer_norm",
}
_FEED_FORWARD = {"w1": "fc1.weight", "b1": "fc1.bias", "w2": "fc2.weight", "b2": "fc2.bias"}
_SCALE_AND_BIAS = {"scale": "weight", "bias": "bias"}
_OUTSIDE_LAYERS = {
    ("source_embedding", "table"): "model.encoder.embed_tokens.weight",
    ("output", "table"): "lm_head.weight",
    ("output", "bias"): "final_logits_bias",
}


def their_name(path: tuple[str, ...], layer: int | None, own_source_table: bool) -> str:
    """Returns the name of one of their tensors.

    path:             of our parameter, such as ("encoder", "attention", "query")
    layer:            which one of a stack, None for what is in no layer
    own_source_table: whether source and target have tables of their own
    """
    if path == ("embedding", "table"):
        return "model.decoder.embed_tokens.weight" if own_source_table else "model.shared.weight"
    if path in _OUTSIDE_LAYERS:
        return _OUTSIDE_LAYERS[path]
    stack, part, *rest = path
    if layer is None:  # ("encoder_norm", "scale")
        return f"model.{stack.removesuffix('_norm')}.layer_norm.{_SCALE_AND_BIAS[part]}"
    place = f"model.{stack}.layers.{layer}"
    match (part, *rest):
        case ("feed_forward", name):
            return f"{place}.{_FEED_FORWARD[name]}"
        case (residual, "norm", name):
            return f"{place}.{_NORMS[residual]}.{_SCALE_AND_BIAS[name]}"
        case (attention, "bias", name):
            return f"{place}.{_ATTENTIONS[attention]}.{_PROJECTIONS[name]}.bias"
        case (attention, name):
            return f"{place}.{_ATTENTIONS[attention]}.{_PROJECTIONS[name]}.weight"
    raise ValueError(f"they have no parameter for {'.'.join(path)}")


def to_theirs(array: np.ndarray, letters: str) -> np.ndarray:
    """Returns one layer's parameter, whose axes are `letters`, in their layout."""
    flat, letters = _join_heads(array, letters)
    for axis, letter in enumerate(letters):
        if letter == "d":
            flat = flat.take(_halves(flat.shape[axis]), axis)
    return np.ascontiguousarray(flat.T if _is_projection(letters) else flat)


def to_ours(array: np.ndarray, letters: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns what `to_theirs` was given, of that `shape`; undoes it exactly."""
    _, joined = _join_heads(np.empty(shape, bool), letters)
    flat = array.T if _is_projection(joined) else array
    for axis, letter in enumerate(joined):
        if letter == "d":
            flat = flat.take(np.argsort(_halves(flat.shape[axis])), axis)
    return np.ascontiguousarray(flat.reshape(shape))


def their_shape(letters: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape that a parameter of `shape` has there."""
    flat, joined = _join_heads(np.broadcast_to(np.False_, shape), letters)
    return flat.shape[::-1] if _is_projection(joined) else flat.shape


def _join_heads(array: np.ndarray, letters: str) -> tuple[np.ndarray, str]:
    """Returns the array with its heads side by side, as one axis "h"."""
    if "hk" not in letters:
        return array, letters
    place = letters.index("h")
    shape = (*array.shape[:place], -1, *array.shape[place + 2 :])
    return array.reshape(shape), letters.replace("k", "")


def _is_projection(letters: str) -> bool:
    return len(letters) == 2 and "v" not in letters


def _halves(d: int) -> np.ndarray:
    """The order in which sines (even places) come first, then cosines."""
    return np.concatenate([np.arange(0, d, 2), np.arange(1, d, 2)])
