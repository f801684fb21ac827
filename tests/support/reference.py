"""The Transformer of the paper in numpy, one line a formula, with the library's parameters."""

import math

import numpy as np


def attention(query, key, value, mask):
    """Equation 1; `mask` (b,t,s). Returns the weights (b,h,t,s) and the result (b,t,h,k)."""
    scores = np.einsum("bthk,bshk->bhts", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max()) * mask[:, None]
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights, np.einsum("bhts,bshk->bthk", weights, value)


def multi_head_attention(params, x, memory, mask):
    """Section 3.2.2."""

    def project(letters, x, name):
        return np.einsum(letters, x, params[name]) + params.get("bias", {}).get(name, 0)

    query = project("btd,dhk->bthk", x, "query")
    key, value = (project("bsd,dhk->bshk", memory, name) for name in ("key", "value"))
    return project("bthk,hkd->btd", attention(query, key, value, mask)[1], "output")


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2,
    "swish": lambda x: x / (1 + np.exp(-x)),
}


def feed_forward(model, params, x):
    """Equation 2."""
    hidden = ACTIVATIONS[model.activation](x @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def layer_norm(model, params, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + model.norm_epsilon)
    return normal * params["scale"] + params["bias"]


def residual(model, params, sublayer, x):
    if model.norm == "post":
        return layer_norm(model, params["norm"], x + sublayer(x))
    return x + sublayer(layer_norm(model, params["norm"], x))


def encoder_layer(model, params, x, mask):
    """Figure 1, left."""

    def attend(y):
        return multi_head_attention(params["attention"], y, y, mask)

    def transform(y):
        return feed_forward(model, params["feed_forward"], y)

    x = residual(model, params["attention_residual"], attend, x)
    return residual(model, params["feed_forward_residual"], transform, x)


def decoder_layer(model, params, x, memory, self_mask, cross_mask):
    """Figure 1, right."""

    def attend(y):
        return multi_head_attention(params["self_attention"], y, y, self_mask)

    def look_at_source(y):
        return multi_head_attention(params["cross_attention"], y, memory, cross_mask)

    def transform(y):
        return feed_forward(model, params["feed_forward"], y)

    x = residual(model, params["self_residual"], attend, x)
    x = residual(model, params["cross_residual"], look_at_source, x)
    return residual(model, params["feed_forward_residual"], transform, x)


def embed(model, params, ids, positions):
    """Sections 3.4 and 3.5."""
    d = params["table"].shape[1]
    if "positions" in params:
        encodings = params["positions"][positions]
    else:
        i = np.arange(d)
        first, width = (2, d - 2) if model.positions == "fairseq" else (0, d)
        angles = (positions[..., None] + first) / 10_000 ** (2 * (i // 2) / width)
        encodings = np.where(i % 2 == 0, np.sin(angles), np.cos(angles))
    return params["table"][ids] * (np.sqrt(d) if model.scale_embedding else 1) + encodings


def features(model, params, batch):
    """The decoder's output for a packed batch of which no row is without padding."""
    source, target = batch.source_segments, batch.target_segments
    embedding = params["source_embedding" if model.own_source_table else "embedding"]
    x = embed(model, embedding, batch.source_ids, batch.source_positions)
    mask = source[:, :, None] == source[:, None, :]
    for layer in _unstack(params["encoder"]):
        x = encoder_layer(model, layer, x, mask)
    memory = layer_norm(model, params["encoder_norm"], x) if model.norm == "pre" else x
    x = embed(model, params["embedding"], batch.target_inputs, batch.target_positions)
    cross_mask = target[:, :, None] == source[:, None, :]
    self_mask = (target[:, :, None] == target[:, None, :]) & np.tri(x.shape[1], dtype=bool)
    for layer in _unstack(params["decoder"]):
        x = decoder_layer(model, layer, x, memory, self_mask, cross_mask)
    return layer_norm(model, params["decoder_norm"], x) if model.norm == "pre" else x


def logits(model, params, batch):
    """Section 3.4, of `features`."""
    output = {"table": params["embedding"]["table"], "bias": 0} | params.get("output", {})
    return features(model, params, batch) @ output["table"].T + output["bias"]


def _unstack(layers, depth=2):
    def pick(tree, index):
        if isinstance(tree, dict):
            return {name: pick(branch, index) for name, branch in tree.items()}
        return tree[index]

    return [pick(layers, index) for index in range(depth)]
