"""The Transformer of the paper in numpy, one line a formula, with the library's parameters."""

import numpy as np


def attention(query, key, value, mask):
    """Equation 1; `mask` (b,t,s). Returns the weights (b,h,t,s) and the result (b,t,h,k)."""
    scores = np.einsum("bthk,bshk->bhts", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max()) * mask[:, None]
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights, np.einsum("bhts,bshk->bthk", weights, value)


def multi_head_attention(params, x, memory, mask):
    """Section 3.2.2."""
    query = np.einsum("btd,dhk->bthk", x, params["query"])
    key, value = (np.einsum("bsd,dhk->bshk", memory, params[name]) for name in ("key", "value"))
    return np.einsum("bthk,hkd->btd", attention(query, key, value, mask)[1], params["output"])


def feed_forward(params, x):
    """Equation 2."""
    return np.maximum(x @ params["w1"] + params["b1"], 0) @ params["w2"] + params["b2"]


def layer_norm(params, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return normal * params["scale"] + params["bias"]


def residual(order, params, sublayer, x):
    if order == "post":
        return layer_norm(params["norm"], x + sublayer(x))
    return x + sublayer(layer_norm(params["norm"], x))


def encoder_layer(order, params, x, mask):
    """Figure 1, left."""

    def attend(y):
        return multi_head_attention(params["attention"], y, y, mask)

    def transform(y):
        return feed_forward(params["feed_forward"], y)

    x = residual(order, params["attention_residual"], attend, x)
    return residual(order, params["feed_forward_residual"], transform, x)


def decoder_layer(order, params, x, memory, self_mask, cross_mask):
    """Figure 1, right."""

    def attend(y):
        return multi_head_attention(params["self_attention"], y, y, self_mask)

    def look_at_source(y):
        return multi_head_attention(params["cross_attention"], y, memory, cross_mask)

    def transform(y):
        return feed_forward(params["feed_forward"], y)

    x = residual(order, params["self_residual"], attend, x)
    x = residual(order, params["cross_residual"], look_at_source, x)
    return residual(order, params["feed_forward_residual"], transform, x)


def embed(params, ids, positions):
    """Sections 3.4 and 3.5."""
    d = params["table"].shape[1]
    if "positions" in params:
        encodings = params["positions"][positions]
    else:
        i = np.arange(d)
        angles = positions[..., None] / 10_000 ** (2 * (i // 2) / d)
        encodings = np.where(i % 2 == 0, np.sin(angles), np.cos(angles))
    return params["table"][ids] * np.sqrt(d) + encodings


def features(order, params, batch):
    """The decoder's output for a packed batch of which no row is without padding."""
    source, target = batch.source_segments, batch.target_segments
    x = embed(params["embedding"], batch.source_ids, batch.source_positions)
    mask = source[:, :, None] == source[:, None, :]
    for layer in _unstack(params["encoder"]):
        x = encoder_layer(order, layer, x, mask)
    memory = layer_norm(params["encoder_norm"], x) if order == "pre" else x
    x = embed(params["embedding"], batch.target_inputs, batch.target_positions)
    cross_mask = target[:, :, None] == source[:, None, :]
    self_mask = (target[:, :, None] == target[:, None, :]) & np.tri(x.shape[1], dtype=bool)
    for layer in _unstack(params["decoder"]):
        x = decoder_layer(order, layer, x, memory, self_mask, cross_mask)
    return layer_norm(params["decoder_norm"], x) if order == "pre" else x


def _unstack(layers, depth=2):
    def pick(tree, index):
        if isinstance(tree, dict):
            return {name: pick(branch, index) for name, branch in tree.items()}
        return tree[index]

    return [pick(layers, index) for index in range(depth)]
