"""BLEU of short and of long sentences apart, as Bahdanau et al. 2015 (figure 2) show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flax_transformer.evaluation.scores import bleu_only

FIRST_LENGTHS = (1, 11, 21, 31, 41)
"""Words of the shortest source of each bin; the last bin has no end."""

FEW_SENTENCES = 20
"""With fewer, BLEU says next to nothing."""


@dataclass(frozen=True)
class LengthBin:
    """The sentences whose source has `shortest` to `longest` words; None stands for no limit."""

    shortest: int
    longest: int | None
    sentences: int
    bleu: float | None
    """Of these sentences alone, as `scores.bleu_only`; None where there are none."""

    @property
    def name(self) -> str:
        return f"{self.shortest}+" if self.longest is None else f"{self.shortest}-{self.longest}"

    @property
    def too_few(self) -> bool:
        """Whether its BLEU should not be read as a measure."""
        return self.sentences < FEW_SENTENCES


def bleu_by_source_length(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    first_lengths: Sequence[int] = FIRST_LENGTHS,
    *,
    extra_references: Sequence[Sequence[str]] = (),
    tokenize: str = "13a",
    lowercase: bool = False,
) -> list[LengthBin]:
    """Returns BLEU in bins of the number of words in the source, split at white space.

    first_lengths: words of the shortest source of each bin, rising

    The other arguments are those of `scores.bleu_only`.
    Shorter sentences, such as empty ones, are in no bin.
    """
    lengths = [len(source.split()) for source in sources]
    rows = list(zip(hypotheses, references, *extra_references, strict=True))
    bins = []
    for shortest, following in zip(first_lengths, [*first_lengths[1:], None], strict=True):
        chosen = [
            row
            for length, row in zip(lengths, rows, strict=True)
            if shortest <= length and (following is None or length < following)
        ]
        bleu = None
        if chosen:
            texts, right, *more = (list(column) for column in zip(*chosen, strict=True))
            options: dict[str, Any] = {"tokenize": tokenize, "lowercase": lowercase}
            bleu = bleu_only(texts, right, extra_references=more, **options)
        bins.append(LengthBin(shortest, following and following - 1, len(chosen), bleu))
    return bins
