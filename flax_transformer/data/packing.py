"""Packing sentence pairs into rows of fixed shape, so that XLA sees one shape and little padding.

Which lengths share a row is decided once for a corpus. Which of the pairs with those lengths
stand there, and the order of rows, is drawn anew for every epoch. So an epoch always has the
same number of rows, and `batch = f(corpus, seed, step)` without any state: a run resumes exactly
from its step alone, on any number of devices.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flax_transformer.batch import Batch
from flax_transformer.config import BatchConfig
from flax_transformer.data.token_cache import RaggedArray, TokenizedPairs
from flax_transformer.errors import UserError
from flax_transformer.text.tokenizer import BOS_ID, PAD_ID


@dataclass(frozen=True)
class Selection:
    """The pairs of a corpus that training can use, and how many it cannot, by reason.

    verdicts: (pairs), 0 for a pair that can be used, else 1 + the index of the first of `reasons`
              that rules it out.
    """

    verdicts: np.ndarray
    reasons: tuple[str, ...]

    @property
    def kept(self) -> np.ndarray:
        """The numbers of the pairs that can be used."""
        return np.flatnonzero(self.verdicts == 0)

    @property
    def dropped(self) -> dict[str, int]:
        """How many pairs cannot be used, by reason."""
        counts = np.bincount(self.verdicts, minlength=len(self.reasons) + 1)
        return dict(zip(self.reasons, counts[1:].tolist(), strict=True))

    def describe(self) -> str:
        """Returns for a person how many pairs are kept and dropped, and why."""
        reasons = [f"{count:,} {reason}" for reason, count in self.dropped.items() if count]
        return f"{len(self.kept):,} pairs kept; dropped: {', '.join(reasons) or 'none'}"


def select_pairs(pairs: TokenizedPairs, config: BatchConfig, split: str = "train") -> Selection:
    """Selects pairs; drops those empty on a side, too long for a row or too different in length.

    Raises `UserError` when nothing of the `split` is left.
    """
    source, target = pairs.source.lengths, pairs.target.lengths
    empty = (source <= 1) | (target <= 1)  # EOS alone
    long = (source > config.source_length) | (target > config.target_length)
    ratio = np.maximum(source, target) > config.max_length_ratio * np.minimum(source, target)
    reasons = {
        "empty on one side": empty,
        f"longer than {config.source_length} source or {config.target_length} target tokens": long,
        f"with one side over {config.max_length_ratio:g} times as long as the other": ratio,
    }
    verdicts = np.select(list(reasons.values()), range(1, len(reasons) + 1)).astype(np.int8)
    selection = Selection(verdicts, tuple(reasons))
    if not len(selection.kept):
        raise UserError(
            f"no pair of {split} is usable: {selection.describe()}. Use other text for {split}, or "
            "raise batch.source_length, batch.target_length or batch.max_length_ratio"
        )
    return selection


@dataclass(frozen=True)
class Template:
    """Which pairs each row takes, as positions in the list of all pairs sorted by length.

    Row r takes the positions `pair_positions[row_starts[r]:row_starts[r + 1]]`.
    """

    pair_positions: np.ndarray
    row_starts: np.ndarray

    @property
    def num_rows(self) -> int:
        return len(self.row_starts) - 1


def pack(lengths: np.ndarray, source_length: int, target_length: int) -> Template:
    """Places pairs of `lengths` (n,2) (source, target) in rows; a pure function of the lengths.

    Greedy: a row takes the longest target that still fits, and of the pairs with such a target the
    one whose source keeps both sides of the row equally full. Equal rows are made in one go, so
    the time depends on the number of distinct rows, not on the number of pairs.
    """
    source, target = lengths[:, 0], lengths[:, 1]
    classes = np.zeros((target_length + 1, source_length + 1), np.int64)
    np.add.at(classes, (target, source), 1)
    first = np.cumsum(classes).reshape(classes.shape) - classes  # first position of each class
    left, next_position = classes.copy(), first.copy()
    shortest = _shortest_sources(left)
    pair_positions, sizes = [], []
    while (shortest <= source_length).any():
        row = _fill_row(left, shortest, source_length, target_length)
        copies = min(available // times for available, times in row.values())
        places = []
        for (t, s), (_, times) in row.items():
            start = next_position[t, s]
            places.append(np.arange(start, start + copies * times).reshape(copies, times))
            next_position[t, s] += copies * times
            left[t, s] -= copies * times
            shortest[t] = _shortest_sources(left[t : t + 1])[0]
        pair_positions.append(np.concatenate(places, axis=1))
        sizes.append(np.full(copies, pair_positions[-1].shape[1]))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    return Template(np.concatenate([block.ravel() for block in pair_positions]), starts)


def _shortest_sources(left: np.ndarray) -> np.ndarray:
    """Returns for each target length the shortest source length left.

    Where none is left, it is a huge number.
    """
    available = left > 0
    return np.where(available.any(axis=1), available.argmax(axis=1), np.iinfo(np.int64).max)


def _fill_row(left, shortest, source_room: int, target_room: int) -> dict:
    """Fills one row: returns {(target length, source length): (pairs left, times taken)}.

    Leaves its arguments as they were.
    """
    row: dict[tuple[int, int], tuple[int, int]] = {}
    shortest = shortest.copy()
    while True:
        fitting = np.flatnonzero(shortest[: target_room + 1] <= source_room)
        if not len(fitting):
            break
        t = int(fitting[-1])
        sources = np.flatnonzero(left[t, : source_room + 1] > 0)
        s = int(sources[np.abs(sources - source_room * t / target_room).argmin()])
        available, times = row.get((t, s), (int(left[t, s]), 0))
        row[t, s] = (available, times + 1)
        left[t, s] -= 1
        shortest[t] = _shortest_sources(left[t : t + 1])[0]
        source_room, target_room = source_room - s, target_room - t
    for place, (available, _) in row.items():
        left[place] = available
    return row


class PackedRows:
    """The endless stream of rows of a corpus: `batch(step)` is the same in every process.

    An epoch holds each pair as often as `kept` holds its number.
    """

    def __init__(self, pairs: TokenizedPairs, kept: np.ndarray, config: BatchConfig, seed: int):
        self.pairs, self.kept, self.config, self.seed = pairs, kept, config, seed
        self.lengths = np.stack([pairs.source.lengths[kept], pairs.target.lengths[kept]], axis=1)
        self.template = pack(self.lengths, config.source_length, config.target_length)
        self._plan = functools.lru_cache(maxsize=2)(self._draw_plan)

    @property
    def steps_per_epoch(self) -> float:
        """Training steps in an epoch; not always a whole number."""
        return self.template.num_rows / self.config.rows

    @property
    def fill(self) -> tuple[float, float]:
        """Share of the source and of the target positions that hold a token."""
        room = self.template.num_rows * np.array(
            [self.config.source_length, self.config.target_length]
        )
        source, target = self.lengths.sum(axis=0) / room
        return float(source), float(target)

    def describe(self) -> str:
        """Returns for a person how many rows an epoch has and how full they are."""
        source, target = self.fill
        return (
            f"{self.template.num_rows:,} rows, {source:.1%} of source and {target:.1%} of target "
            "positions filled"
        )

    def _draw_plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns an epoch's pair numbers and its order of rows.

        The numbers are sorted by length of the pair; equal lengths are in random order.
        """
        random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        ties = random.permutation(len(self.lengths))
        by_length = np.lexsort((ties, self.lengths[:, 0], self.lengths[:, 1]))
        return self.kept[by_length], random.permutation(self.template.num_rows)

    def pairs_of_row(self, index: int) -> np.ndarray:
        """Returns the numbers of the pairs in row `index`, counted from the start of training."""
        epoch, place = divmod(index, self.template.num_rows)
        pair_numbers, row_order = self._plan(epoch)
        row = row_order[place]
        return pair_numbers[
            self.template.pair_positions[
                self.template.row_starts[row] : self.template.row_starts[row + 1]
            ]
        ]

    def batch(self, step: int, own: slice = slice(None)) -> Batch:
        """Returns the batch of `step`, counted from 0, or only its rows `own`."""
        first = step * self.config.rows
        indices = range(first, first + self.config.rows)[own]
        members = [self.pairs_of_row(index) for index in indices]
        return lay_out(self.pairs, members, self.config.source_length, self.config.target_length)

    def once(self, own: slice = slice(None)) -> Iterator[Batch]:
        """Yields every pair exactly once, in batches; of each batch only the rows `own`.

        The last batch is filled up with empty rows.
        """
        num_rows, rows = self.template.num_rows, self.config.rows
        for first in range(0, num_rows, rows):
            members = [self.pairs_of_row(i) for i in range(first, min(first + rows, num_rows))]
            members += [np.zeros(0, np.int64)] * (rows - len(members))
            yield lay_out(
                self.pairs, members[own], self.config.source_length, self.config.target_length
            )


def lay_out(
    pairs: TokenizedPairs, members: Sequence[np.ndarray], source_length: int, target_length: int
) -> Batch:
    """Returns rows with the pairs `members[row]`, in order, as one `Batch`."""
    numbers = np.concatenate(members)
    counts = np.array([len(row) for row in members])
    row_of_pair = np.repeat(np.arange(len(members)), counts)
    segment_of_pair = _count_up(counts) + 1
    place = (row_of_pair, segment_of_pair, len(members))
    source, source_segments, source_positions = _lay_out_side(
        pairs.source, numbers, *place, source_length
    )
    target, target_segments, target_positions = _lay_out_side(
        pairs.target, numbers, *place, target_length
    )
    inputs = np.where(target_positions == 0, BOS_ID, np.roll(target, 1, axis=1))
    inputs = np.where(target_segments == 0, PAD_ID, inputs).astype(np.int32)
    return Batch(
        source_ids=source,
        source_segments=source_segments,
        source_positions=source_positions,
        target_inputs=inputs,
        target_outputs=target,
        target_segments=target_segments,
        target_positions=target_positions,
    )


def _lay_out_side(
    tokens: RaggedArray, numbers, row_of_pair, segment_of_pair, num_rows: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ids, segments and positions (rows, length) of one language."""
    lengths = tokens.offsets[numbers + 1] - tokens.offsets[numbers]
    before = np.cumsum(lengths) - lengths  # tokens before each pair, over all rows
    # Rows without any pair point past the end; nothing reads their entries.
    row_begins = np.append(before, 0)[np.searchsorted(row_of_pair, np.arange(num_rows))]
    positions = _count_up(lengths)
    flat = np.repeat(row_of_pair * length + before - row_begins[row_of_pair], lengths) + positions
    values = tokens.values[np.repeat(tokens.offsets[numbers], lengths) + positions]
    result = []
    for content in (values, np.repeat(segment_of_pair, lengths), positions):
        array = np.zeros(num_rows * length, np.int32)
        array[flat] = content
        result.append(array.reshape(num_rows, length))
    return result[0], result[1], result[2]


def _count_up(lengths: np.ndarray) -> np.ndarray:
    """Returns 0 .. n-1 for every n in `lengths`, one after the other."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
