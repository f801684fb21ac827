"""Batches of few shapes, so that few programs are compiled.

Letters: b batch, s source length, t target length.
"""

from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from flax_transformer.config import Config
from flax_transformer.decoding.lengths import longest_source, longest_target
from flax_transformer.decoding.prefix import Prefix
from flax_transformer.text.tokenizer import EOS_ID, PAD_ID, Tokenizer
from flax_transformer.translation.long_lines import Piece
from flax_transformer.translation.prefixes import PLACES, lead_through
from flax_transformer.translation.required import Shape, lay_out_required, shape_of_required


class Rows(NamedTuple):
    """What a search is given beside the parameters, a row for each piece.

    ids:      (b,s) int32, of the sources
    prefix:   what translations begin with, where any is told
    required: (b,c,p) int32, the phrases that they hold, where any must hold some
    """

    ids: np.ndarray
    prefix: Prefix | None = None
    required: np.ndarray | None = None


_SHORTEST_BUCKET = 16

_WORTH_COMPILING = 4
"""Batches that must wait before their shape is compiled, where a program for longer ones exists."""

_FEW_ROWS = 8
"""Rows of a batch when no more lines wait, as when somebody types: a whole one would be waste."""


def most_rows(config: Config, length: int, devices: int) -> int:
    """Returns how many rows of `length` tokens a batch holds, as many for each device."""
    return max(config.decoding.batch_tokens // length // devices, 1) * devices


class Program(NamedTuple):
    """What a search is compiled for: (b,s), whether it can force tokens, and which phrases it can
    require."""

    b: int
    s: int
    forces: bool
    required: Shape | None = None

    @classmethod
    def of(cls, rows: Rows) -> "Program":
        """Returns what searches with `rows`."""
        required = None if rows.required is None else rows.required.shape[1:]
        b, s = rows.ids.shape
        return cls(b, s, rows.prefix is not None, required)


class Batching:
    """Lays pieces out in batches of few shapes for each of a few lengths."""

    def __init__(
        self, config: Config, tokenizer: Tokenizer, devices: int, rows_ahead: Sequence[int] = ()
    ):
        """Makes batches of `config.decoding.batch_tokens`, of which each device gets whole rows.

        rows_ahead: the numbers of rows that batches may have, ascending, where every program is to
                    be compiled ahead; batches that force tokens then are small. By default few or
                    many, and as many programs as the pieces ask for.
        """
        self._config = config
        self._tokenizer = tokenizer
        self._devices = devices
        self._longest_source = longest_source(config)
        self._rows_ahead = rows_ahead

    def programs_ahead(self) -> list[Program]:
        """Returns every program that batches may need, where they are to be compiled ahead."""
        lengths = {self.shape(length, 1)[1] for length in range(1, self._longest_source + 1)}
        free = {Program(*self.shape(s, b), forces=False) for s in lengths for b in self._rows_ahead}
        return sorted(free) + [Program(*self.shape(s, 1, True), forces=True) for s in lengths]

    def batches(
        self, pieces: Sequence[Piece], compiled: Container[Program]
    ) -> Iterator[tuple[list[int], Rows]]:
        """Yields (indices of the pieces, what `lay_out` makes of these).

        The longest pieces come first, so that shorter ones take the rows left in the last batch of
        a length, and memory runs out in the first batch if at all.

        A batch has the shape of the one before it rather than a smaller one that would have to be
        compiled first: compiling takes longer than a few batches.
        """
        forces = any(piece.forced or piece.word for piece in pieces)
        required = shape_of_required(pieces)
        order = sorted(range(len(pieces)), key=lambda index: -len(pieces[index].ids))
        start, before = 0, None
        while start < len(order):
            waiting = len(order) - start
            shape = self.shape(len(pieces[order[start]].ids) + 1, waiting, forces)
            known = Program(*shape, forces, required) in compiled
            if before is not None and not known and waiting < _WORTH_COMPILING * shape[0]:
                shape = before
            indices = order[start : start + shape[0]]
            members = [pieces[index] for index in indices]
            rows = self.lay_out(members, shape, forces)
            if required is not None:
                rows = rows._replace(required=lay_out_required(members, shape[0], required))
            yield indices, rows
            start, before = start + len(indices), shape

    def shape(self, longest: int, waiting: int, forces: bool = False) -> tuple[int, int]:
        """Returns (b,s) of a batch, where `waiting` pieces have up to `longest` tokens.

        s, which counts end symbols as `longest` does, is a power of two, or the longest there is.
        """
        s = min(max(1 << (longest - 1).bit_length(), _SHORTEST_BUCKET), self._longest_source)
        many = most_rows(self._config, s, self._devices)
        ahead = (_FEW_ROWS,) if forces and self._rows_ahead else self._rows_ahead
        for rows in ahead or (_FEW_ROWS, many):
            b = min(-(-rows // self._devices) * self._devices, many)
            if waiting <= b:
                break
        return b, s

    def lay_out(self, pieces: Sequence[Piece], shape: tuple[int, int], forces: bool) -> Rows:
        """Returns the ids (b,s), then PAD, and what translations begin with if any is forced.

        Rows after the pieces hold an end symbol only.
        """
        b, s = shape
        ids = np.full(shape, PAD_ID, np.int32)
        ids[:, 0] = EOS_ID
        for row, piece in enumerate(pieces):
            ids[row, : len(piece.ids) + 1] = [*piece.ids, EOS_ID]
        if not forces:
            return Rows(ids)
        tokens = np.full((b, longest_target(self._config, s)), PAD_ID, np.int32)
        nexts = np.full((b, PLACES, self._tokenizer.vocabulary_size), -1, np.int8)
        nexts[:, 0] = 0
        for row, piece in enumerate(pieces):
            tokens[row, : len(piece.forced)] = piece.forced
            lead_through(piece.word, self._tokenizer.target, nexts[row])
        return Rows(ids, Prefix(tokens, nexts))
