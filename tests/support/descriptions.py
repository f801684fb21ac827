"""Made-up descriptions of sentences, as `describe_sentence` returns them, without a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flax_transformer.inspection.sentence import KINDS, mean_entropy, pack_weights

SOURCE = ("▁The", "▁cat", "▁sle", "eps", "▁here", ".")
TARGET = ("▁Le", "▁chat", "▁dort", "▁ici", ".")


def text_of(pieces: Sequence[str]) -> str:
    return "".join(pieces).replace("▁", " ").strip()


def describe(
    source: Sequence[str] = SOURCE,
    target: Sequence[str] = TARGET,
    *,
    layers: int = 2,
    heads: int = 3,
    kinds: Sequence[str] = KINDS,
    beam_size: int = 2,
    forced: int = 0,
    text: str | None = None,
) -> dict[str, Any]:
    """A sentence with random weights, and a search whose best hypothesis is `target`."""
    translation = text_of(target)
    weights = draw_weights(len(source) + 1, len(target) + 1, layers, heads)
    return {
        "text": text_of(source) if text is None else text,
        "source": [*source, "</s>"],
        "target": [*target, "</s>"],
        "inputs": ["<s>", *target],
        "translation": translation,
        "prefix": text_of(target[:forced]),
        "path": [0] * (len(target) + 1),
        "attention": {kind: pack_weights(weights[kind]) for kind in kinds},
        "entropy": {
            kind: mean_entropy(weights[kind], causal=kind == "decoder").round(4).tolist()
            for kind in kinds
        },
        "hypotheses": [
            describe_hypothesis(target, -0.25, [0] * (len(target) + 1)),
            describe_hypothesis(target[:-1], -0.75, [0] * (len(target) - 1) + [1]),
        ],
        "search": {
            "prefix_length": forced,
            "steps": draw_search(target, beam_size, forced),
        },
    }


def describe_hypothesis(pieces: Sequence[str], score: float, path: list[int]) -> dict[str, Any]:
    return {"text": text_of(pieces), "score": score, "pieces": list(pieces), "path": path}


def draw_weights(s: int, t: int, layers: int, heads: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {}
    for kind, rows, columns in (("encoder", s, s), ("decoder", t, t), ("cross", t, s)):
        logits = random.normal(0, 2, (layers, heads, rows, columns))
        if kind == "decoder":
            logits = np.where(np.tri(rows, dtype=bool), logits, -np.inf)
        exponentials = np.exp(logits)
        found[kind] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return found


def draw_search(target: Sequence[str], beam_size: int, forced: int) -> list[list[dict[str, Any]]]:
    """Its first candidate is always the target's; the second lengthens it too, as do all others.

    One hypothesis, the target without its last piece, ends a step earlier.
    """
    steps = []
    for step, piece in enumerate([*target, "</s>"]):
        candidates = [piece, *(f"▁other{rank}" for rank in range(1, 2 * beam_size))]
        if step == len(target) - 1:
            candidates[1] = "</s>"
        steps.append(
            [
                {
                    "piece": each,
                    "parent": 0 if step else None,
                    "log_probability": -0.1 * (step + 1) - 0.5 * rank,
                    "score": -0.1 - 0.5 * rank,
                    "fate": fate_of(each, rank, beam_size),
                }
                for rank, each in enumerate(candidates[: 1 if step < forced else None])
            ]
        )
    return steps


def fate_of(piece: str, rank: int, beam_size: int) -> str:
    if piece == "</s>":
        return "finished"
    return "live" if rank < beam_size else "pruned"
