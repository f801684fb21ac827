"""Translations as lines: of text, or of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the libraries take seconds to load, which --help should not
    from flax_transformer.translation.hypotheses import Hypothesis
    from flax_transformer.translation.token_details import TokenDetails
    from flax_transformer.translation.trained_model import TrainedModel

FormatChunk = Callable[["TrainedModel", Sequence[Sequence["Hypothesis"]], int], str]
"""(model, translations of some lines, number of the first line) -> what to write."""


def as_text(
    model: TrainedModel,
    translations: Sequence[Sequence[Hypothesis]],
    first: int,
    n_best: int | None,
) -> str:
    """A line for each translation; with `n_best` so many, with their scores."""
    if n_best is None:
        return "".join(f"{best.text}\n" for best, *_ in translations)
    return "".join(
        f"{number} ||| {hypothesis.text} ||| {hypothesis.score:.4f}\n"
        for number, hypotheses in enumerate(translations, first)
        for hypothesis in hypotheses[:n_best]
    )


def as_json(
    model: TrainedModel,
    translations: Sequence[Sequence[Hypothesis]],
    first: int,
    n_best: int | None,
) -> str:
    """An object for each line, with the best translation and what the model says of its tokens."""
    chosen = [hypotheses[: n_best or 1] for hypotheses in translations]
    details = iter(model.token_details([each for hypotheses in chosen for each in hypotheses]))
    lines = []
    for number, hypotheses in enumerate(chosen, first):
        said = [next(details) for _ in hypotheses]
        best, *others = map(_describe, hypotheses, said)
        found = {"line": number, "source_tokens": said[0].source_tokens, **best}
        if n_best is not None:
            found["alternatives"] = others
        lines.append(json.dumps(found, ensure_ascii=False) + "\n")
    return "".join(lines)


def _describe(hypothesis: Hypothesis, details: TokenDetails) -> dict[str, Any]:
    return {
        "translation": hypothesis.text,
        "score": _rounded(hypothesis.score),
        "tokens": details.tokens,
        "log_probabilities": [_rounded(each) for each in details.log_probabilities],
        "alignment": details.alignment,
    }


def _rounded(value: float) -> float | None:
    """A number that JSON can write, None where there is none such."""
    return round(value, 4) if math.isfinite(value) else None
