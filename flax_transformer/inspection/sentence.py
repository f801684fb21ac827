"""All that one sentence shows of a model, as JSON: what the explorer's page reads.

Letters: l layers, h heads, r rows (queries), c columns (keys).
"""

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from flax_transformer.inspection.attention import attend
from flax_transformer.text.tokenizer import Tokenizer
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
    source       its pieces, the end symbol last
    target       the pieces of the translation, the end symbol last
    inputs       what the decoder was fed: the beginning symbol, then the target but for its end
    beginnings   for each piece of the target the text up to and with it
    translation  the text
    prefix       as given
    attention    by kind, "encoder", "decoder" and "cross", as far as the model has them: the
                 numbers of layers, heads, rows and columns, and the weights as base64 of uint8
                 (l,h,r,c), of which 255 is a weight of 1
    entropy      by kind the mean over the rows of each head, (l,h): 0 where every row looks at a
                 single piece, 1 where it looks evenly at all that it may see
    hypotheses   text, score and pieces of each, best first
    search       prefix_length, and for each step the candidates: piece, parent, log_probability,
                 score, fate; None where the search was not traced

    A number that is not finite is None. Raises `UserError` for a wrong beam size.
    """
    (hypotheses,) = model.search([source], beam_size=beam_size)
    translation = hypotheses[0].text if target is None else target
    attention = attend(model.config, model.params, model.tokenizer, source, translation)
    found = {kind: getattr(attention, kind) for kind in KINDS}
    present = {kind: weights for kind, weights in found.items() if weights is not None}
    return {
        "text": source,
        "source": list(attention.source),
        "target": list(attention.target),
        "inputs": list(attention.inputs),
        "beginnings": _beginnings(model.tokenizer, translation),
        "translation": translation,
        "prefix": prefix,
        "attention": {kind: pack_weights(weights) for kind, weights in present.items()},
        "entropy": {
            kind: _finite(mean_entropy(weights, causal=kind == "decoder").tolist())
            for kind, weights in present.items()
        },
        "hypotheses": _describe_hypotheses(model.tokenizer, hypotheses),
        "search": None,
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


def _beginnings(tokenizer: Tokenizer, translation: str) -> list[str]:
    """Returns the text up to each piece of the translation; the last is that of the end symbol."""
    (ids,) = tokenizer.encode([translation])
    return [*tokenizer.decode([ids[: end + 1] for end in range(len(ids))]), translation]


def _describe_hypotheses(
    tokenizer: Tokenizer, hypotheses: Sequence[Hypothesis]
) -> list[dict[str, Any]]:
    encoded = tokenizer.encode([each.text for each in hypotheses])
    return [
        {"text": each.text, "score": _finite(each.score), "pieces": tokenizer.pieces(ids)}
        for each, ids in zip(hypotheses, encoded, strict=True)
    ]


def _finite(value: Any) -> Any:
    """Returns a number, or lists of them, with None for those that JSON cannot write."""
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return round(value, 6) if math.isfinite(value) else None
