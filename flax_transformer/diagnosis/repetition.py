"""What is wrong with translations at first sight: they repeat themselves, or each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from flax_transformer.translation.hypotheses import Hypothesis

_LONGEST = 3  # tokens of a repeated n-gram


@dataclass(frozen=True)
class OutputFigures:
    """Shares of greedy translations, or of their tokens."""

    sentences: int
    repeated: float
    """Tokens of an n-gram (n up to 3) that repeats the one right before it."""
    repeated_in_references: float
    """The same of the references."""
    identical: float
    """Translations that a different source has as well."""
    empty: float
    too_long: float
    """Translations that the limit of length ended."""


def repeated_share(rows: Sequence[Sequence[int]]) -> float:
    """Returns the share of the tokens of `rows` in n-grams that repeat the one right before them.

    n is up to 3. Of "a a a a" it is three quarters, of "a b a b" a half.
    """
    tokens = sum(map(len, rows))
    return sum(map(_repeated, rows)) / max(tokens, 1)


def _repeated(row: Sequence[int]) -> int:
    places: set[int] = set()
    for n in range(1, _LONGEST + 1):
        for i in range(n, len(row) - n + 1):
            if row[i : i + n] == row[i - n : i]:
                places.update(range(i, i + n))
    return len(places)


def identical_share(sources: Sequence[str], outputs: Sequence[str]) -> float:
    """Returns the share of `outputs` with text that another, different source has as well."""
    having: dict[str, set[str]] = {}
    for source, output in zip(sources, outputs, strict=True):
        having.setdefault(output, set()).add(source)
    shared = [bool(output) and len(having[output]) > 1 for output in outputs]
    return sum(shared) / max(len(shared), 1)


def output_figures(
    sources: Sequence[str],
    outputs: Sequence[Hypothesis],
    limits: Sequence[int],
    tokens: Sequence[Sequence[int]],
    reference_tokens: Sequence[Sequence[int]],
) -> OutputFigures:
    """Returns figures of one translation of each source.

    limits:           most tokens that each may have, end symbol included
    tokens:           the text of the outputs as ids
    reference_tokens: the text of the references as ids
    """
    texts = [output.text for output in outputs]
    count = max(len(texts), 1)
    long = sum(output.tokens >= limit for output, limit in zip(outputs, limits, strict=True))
    return OutputFigures(
        sentences=len(texts),
        repeated=repeated_share(tokens),
        repeated_in_references=repeated_share(reference_tokens),
        identical=identical_share(sources, texts),
        empty=sum(not text.strip() for text in texts) / count,
        too_long=long / count,
    )
