"""All that one sentence shows of a model, as JSON: what the explorer's page reads.

Letters: l layers, h heads, r rows (queries), c columns (keys).
"""

import base64
import math
from typing import Any

import numpy as np

from flax_transformer.inspection.attention import Attention, attend_ids
from flax_transformer.inspection.search_tree import SearchTree, read_search
from flax_transformer.text.tokenizer import EOS_ID
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.translation.trained_model import TrainedModel

KINDS = ("encoder", "decoder", "cross")
"""The attentions of a model, as `Attention` names them."""


def describe_sentence(
    model: TrainedModel,
    source: str,
    *,
    target: str | None = None,
    prefix: str = "",
    beam_size: int | None = None,
) -> dict[str, Any]:
    """Returns what the model does with `source`, of types that `json` can write.

    target:    the translation whose attention is shown, by default the best that is found
    prefix:    the text that translations must begin with
    beam_size: hypotheses kept at each position; by default `config.decoding.beam_size`

    The keys of the result:

    text         `source`
    source       the pieces that were read, the end symbol last
    target       the pieces of the translation, the end symbol last
    inputs       what the decoder was fed: the beginning symbol, then the target but for its end
    translation  the text
    prefix       as given
    path         the target's way through the search: of each step the place of its candidate; None
                 for a target that was given
    attention    by kind, "encoder", "decoder" and "cross", as far as the model has them: the
                 numbers of layers, heads, rows and columns, and the weights as base64 of uint8
                 (l,h,r,c), of which 255 is a weight of 1
    entropy      by kind the mean over the rows of each head, (l,h): 0 where every row looks at a
                 single piece, 1 where it looks evenly at all that it may see
    hypotheses   text, score, pieces and path of each, best first
    search       prefix_length, and for each step the candidates: piece, parent, log_probability,
                 score, fate

    A number that is not finite is None. Raises `UserError` as `TrainedModel.record_search`.
    """
    searched = model.record_search(source, beam_size=beam_size, prefix=prefix)
    tree = read_search(searched, model.tokenizer)
    hypotheses = [_describe_hypothesis(each, tree) for each in tree.hypotheses]
    translation = tree.hypotheses[0].text if target is None else target
    path = hypotheses[0]["path"] if target is None else None
    source_ids = [*searched.piece.ids, EOS_ID]
    if path is None:
        target_ids = [*model.tokenizer.target.encode([translation])[0], EOS_ID]
        pieces = model.tokenizer.target.pieces(target_ids)
    else:
        target_ids = [tree.steps[step][place].token for step, place in enumerate(path)]
        pieces = _pieces_on(path, tree)
    attention = attend_ids(model.config, model.params, model.tokenizer, source_ids, target_ids)
    return {
        "text": source,
        "source": list(tree.source),
        "target": pieces,
        "inputs": [attention.inputs[0], *pieces[:-1]],
        "translation": translation,
        "prefix": prefix,
        "path": path,
        **_describe_attention(attention),
        "hypotheses": hypotheses,
        "search": _describe_search(tree),
    }


def pack_weights(weights: np.ndarray) -> dict[str, Any]:
    """Returns attention `weights` (l,h,r,c) in a byte each, for JSON."""
    layers, heads, rows, columns = weights.shape
    levels = np.rint(np.nan_to_num(weights).clip(0, 1) * 255).astype(np.uint8)
    return {
        "layers": layers,
        "heads": heads,
        "rows": rows,
        "columns": columns,
        "weights": base64.b64encode(levels.tobytes()).decode("ascii"),
    }


def mean_entropy(weights: np.ndarray, *, causal: bool) -> np.ndarray:
    """Returns the mean entropy (l,h) of the rows of `weights` (l,h,r,c), each divided by the most
    that it can be.

    causal: row i sees the columns up to i only, not all

    Rows that see a single column are left out; where there is no other, the mean is 0.
    """
    rows, columns = weights.shape[2:]
    visible = np.arange(1, rows + 1) if causal else np.full(rows, columns)
    several = visible > 1
    if not several.any():
        return np.zeros(weights.shape[:2])
    logs = np.log(np.maximum(weights, np.finfo(np.float32).tiny))
    entropy = -(weights * logs).sum(axis=-1)[:, :, several]
    return (entropy / np.log(visible[several])).mean(axis=-1)


def _describe_attention(attention: Attention) -> dict[str, Any]:
    found = {kind: getattr(attention, kind) for kind in KINDS}
    present = {kind: weights for kind, weights in found.items() if weights is not None}
    entropy = {
        kind: mean_entropy(weights, causal=kind == "decoder") for kind, weights in present.items()
    }
    return {
        "attention": {kind: pack_weights(weights) for kind, weights in present.items()},
        "entropy": {kind: _finite(means.tolist()) for kind, means in entropy.items()},
    }


def _describe_hypothesis(hypothesis: Hypothesis, tree: SearchTree) -> dict[str, Any]:
    path = _path_of(hypothesis, tree)
    return {
        "text": hypothesis.text,
        "score": _finite(hypothesis.score),
        "pieces": [] if path is None else _pieces_on(path, tree)[:-1],
        "path": path,
    }


def _path_of(hypothesis: Hypothesis, tree: SearchTree) -> list[int] | None:
    """Returns the place of its candidate at each step, or None for one that no step has."""
    if not 1 <= hypothesis.tokens <= len(tree.steps):
        return None
    last = tree.steps[hypothesis.tokens - 1]
    ends = [place for place, node in enumerate(last) if node.fate == "finished"]
    if not ends:
        return None
    path = [min(ends, key=lambda place: abs(last[place].score - hypothesis.score))]
    for step in reversed(tree.steps[1 : hypothesis.tokens]):
        parent = step[path[0]].parent
        assert parent is not None  # only those of the first step have none
        path.insert(0, parent)
    return path


def _pieces_on(path: list[int], tree: SearchTree) -> list[str]:
    return [tree.steps[step][place].piece for step, place in enumerate(path)]


def _describe_search(tree: SearchTree) -> dict[str, Any]:
    return {
        "prefix_length": tree.prefix_length,
        "steps": [
            [
                {
                    "piece": node.piece,
                    "parent": node.parent,
                    "log_probability": _finite(node.log_probability),
                    "score": _finite(node.score),
                    "fate": node.fate,
                }
                for node in step
            ]
            for step in tree.steps
        ],
    }


def _finite(value: Any) -> Any:
    """Returns a number, or lists of them, with None for those that JSON cannot write."""
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return round(value, 6) if math.isfinite(value) else None
