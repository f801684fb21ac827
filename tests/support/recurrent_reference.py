"""The recurrent models in numpy, one sentence pair alone, with the library's parameters."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cell(kind, from_input, from_state, state):
    """One position; gates (g,u), arrays of the state (u,)."""
    if kind == "lstm":
        i, f, o = sigmoid(from_input + from_state)[:3]
        c = f * state[1] + i * np.tanh(from_input + from_state)[3]
        return o * np.tanh(c), c
    r, z = sigmoid(from_input + from_state)[:2]
    n = np.tanh(from_input[2] + r * from_state[2])
    return ((1 - z) * n + z * state[0],)


def product(x, kernel):
    return np.einsum("d,dgu->gu", x, kernel)


def run(kind, layer, inputs, state):
    """The states after each of `inputs` (t,d)."""
    states = []
    for x in inputs:
        from_input = product(x, layer["input"]) + layer["bias"]
        state = cell(kind, from_input, product(state[0], layer["recurrent"]), state)
        states.append(state)
    return states


def nothing(kind, units):
    return (np.zeros(units),) * (2 if kind == "lstm" else 1)


def encode(config, params, source):
    """h (s,d) of the embedded `source` (s,d), and the last state of each layer."""
    x, last, kind = source, [], config.cell
    for i in range(config.num_encoder_layers):
        layers = [params[f"layer_{i}_forward"]]
        if config.bidirectional:
            layers.append(params[f"layer_{i}_backward"])
        units = config.d_model // len(layers)
        states = [run(kind, layers[0], x, nothing(kind, units))]
        if config.bidirectional:
            states.append(run(kind, layers[1], x[::-1], nothing(kind, units)))
        last.append([np.concatenate(parts) for parts in zip(*(s[-1] for s in states), strict=True)])
        heads = [[state[0] for state in each] for each in states]
        heads = [h[:: -1 if backward else 1] for backward, h in enumerate(heads)]
        x = np.concatenate(heads, axis=1)
    return x, last


def softmax(e):
    weights = np.exp(e - e.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def attend(kind, params, state, memory, coverage):
    """c (d,) and alpha (s,) of the state s_t (d,), given h, `memory` (s,d)."""
    if kind == "multi_head":
        heads = params["heads"]
        query = np.einsum("d,dhk->hk", state, heads["query"])
        key, value = (np.einsum("sd,dhk->shk", memory, heads[name]) for name in ("key", "value"))
        alpha = softmax(np.einsum("hk,shk->hs", query, key) / np.sqrt(query.shape[1]))
        mixed = np.einsum("hs,shk->hk", alpha, value)
        return np.einsum("hk,hkd->d", mixed, heads["output"]), alpha.mean(axis=0)
    if kind == "dot":
        e = memory @ state
    if kind == "general":
        e = memory @ params["matrix"].T @ state
    if kind == "concat":
        inner = state @ params["query"] + memory @ params["key"]
        if "coverage" in params:
            inner = inner + coverage[:, None] * params["coverage"]
        e = np.tanh(inner) @ params["vector"]
    alpha = softmax(e)
    return alpha @ memory, alpha


def decode(config, params, source, target):
    """Features (t,d), attention (t,s) and coverage loss of one pair, both sides ids."""
    d, decoder, kind = config.d_model, params["decoder"], config.cell
    table = params["embedding"]["table"]
    memory, last = encode(config, params["encoder"], table[source] * np.sqrt(d))
    depth = config.num_decoder_layers
    states = [last[max(0, i + len(last) - depth)] for i in range(depth)]
    fed, coverage, loss, features, attention = np.zeros(d), np.zeros(len(source)), 0.0, [], []
    for x in table[target] * np.sqrt(d):
        for i in range(depth):
            layer = decoder[f"layer_{i}"]
            from_input = product(x, layer["input"]) + layer["bias"]
            if i == 0 and config.input_feeding:
                from_input = from_input + product(fed, decoder["feed"])
            from_state = product(states[i][0], layer["recurrent"])
            states[i] = cell(kind, from_input, from_state, states[i])
            x = states[i][0]
        if config.attention != "none":
            c, alpha = attend(config.attention, decoder.get("attention"), x, memory, coverage)
            loss += np.minimum(alpha, coverage).sum()
            coverage = coverage + alpha
            attention.append(alpha)
            x = np.tanh(c @ decoder["combine"][0] + x @ decoder["combine"][1])
        features.append(x)
        fed = x
    return np.array(features), np.array(attention), loss
