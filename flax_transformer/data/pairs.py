"""A split of a corpus: sentence pairs that are read when asked for."""

import hashlib
import struct
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

Pair = tuple[str, str]

_READ_AT_ONCE = 1024


@dataclass(frozen=True)
class Part:
    """Pairs of a split that follow one another and come from one place.

    count:  number of pairs.
    weight: how often an epoch holds each of them.
    tag:    a symbol to put before their source sentences. The text that `Pairs` gives does not
            hold it: where that text spells a tag, it is plain text.
    """

    name: str
    count: int
    weight: int = 1
    tag: str | None = None


class Pairs(Sequence[Pair]):
    """Random access to (source, target); a slice is a list."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """All pairs, in order, by where they come from."""
        return (Part("all", len(self)),)

    @abstractmethod
    def _pairs(self, indices: range) -> list[Pair]:
        """Returns the pairs at `indices`, all of which lie in [0, len)."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns a hash of the content, source and target told apart."""

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...

    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        # range knows negative indices, steps and the IndexError past the end.
        chosen = range(len(self))[index]
        if isinstance(chosen, int):
            return self._pairs(range(chosen, chosen + 1))[0]
        return self._pairs(chosen)

    def __iter__(self) -> Iterator[Pair]:
        # Some corpora are several times as fast when many pairs are read at once.
        for start in range(0, len(self), _READ_AT_ONCE):
            yield from self[start : start + _READ_AT_ONCE]


class PairList(Pairs):
    """Pairs that lie in memory as they are."""

    def __init__(self, pairs: Sequence[Pair]):
        self._list = pairs

    def __len__(self) -> int:
        return len(self._list)

    def _pairs(self, indices: range) -> list[Pair]:
        return [self._list[i] for i in indices]

    def fingerprint(self) -> str:
        return hash_contents(side.encode() for pair in self._list for side in pair)


def hash_contents(contents: Iterable[bytes | bytearray]) -> str:
    """Returns SHA-256 over several byte strings and their lengths.

    So moving a boundary between two of them changes the hash.
    """
    digest = hashlib.sha256()
    for content in contents:
        digest.update(struct.pack("<Q", len(content)))
        digest.update(content)
    return digest.hexdigest()
