"""What the training pairs are like, as the model gets them."""

from dataclasses import dataclass

import numpy as np

from flax_transformer.data.packing import PackedRows

_SAMPLE = 10_000  # pairs, spread evenly over the corpus


@dataclass(frozen=True)
class PairFigures:
    """Figures of the pairs that training uses, or of an even sample of them."""

    pairs: int
    """Number of pairs in the sample."""
    source_fill: float
    """Share of the source slots of all rows that hold a token."""
    target_fill: float
    copies: float
    """Share of pairs whose two sides are the same."""
    length_ratio: float
    """Target tokens for each source token."""
    source_bytes: float
    """Share of source tokens that spell a character in bytes, since no piece has it."""
    target_bytes: float


def pair_figures(rows: PackedRows, byte_ids: range) -> PairFigures:
    """Returns figures of the pairs in `rows`, in which `byte_ids` spell characters in bytes."""
    count = min(len(rows.kept), _SAMPLE)
    chosen = rows.kept[np.linspace(0, len(rows.kept) - 1, count).astype(int)]
    sources = [rows.pairs.source[number] for number in chosen]
    targets = [rows.pairs.target[number] for number in chosen]
    same = sum(np.array_equal(*pair) for pair in zip(sources, targets, strict=True))
    source_fill, target_fill = rows.fill
    return PairFigures(
        pairs=count,
        source_fill=source_fill,
        target_fill=target_fill,
        copies=same / count,
        length_ratio=sum(map(len, targets)) / sum(map(len, sources)),
        source_bytes=_byte_share(sources, byte_ids),
        target_bytes=_byte_share(targets, byte_ids),
    )


def _byte_share(sentences: list[np.ndarray], byte_ids: range) -> float:
    ids = np.concatenate(sentences)
    return float(((ids >= byte_ids.start) & (ids < byte_ids.stop)).mean())
