"""Token ids of a split, computed once and then read from disk as memory-mapped arrays."""

import hashlib
import itertools
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flax_transformer.config_error import ConfigError
from flax_transformer.data.pairs import Pairs, Part
from flax_transformer.data.tokenizing import BpeDropout, Encoded, Encoder, encode_pairs
from flax_transformer.tokenizer import Tokenizer
from flax_transformer.whole_file import whole_file

_FORMAT = 1
_HEADER = struct.Struct("<8sQQQ32x")  # mark, pairs, source ids, target ids; 64 bytes, for alignment
_MARK = b"FTTOKENS"


@dataclass(frozen=True)
class RaggedArray:
    """Rows of different lengths: row i is values[offsets[i]:offsets[i + 1]]."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        index = range(len(self))[index]
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class TokenizedPairs:
    """Ids of both sides, each row closed by EOS; an empty sentence is EOS alone."""

    source: RaggedArray
    target: RaggedArray

    def __len__(self) -> int:
        return len(self.source)


def tokenize_pairs(
    pairs: Pairs,
    tokenizer: Tokenizer,
    fingerprint: str,
    cache_directory: Path,
    description: str,
    dropout: BpeDropout | None = None,
) -> TokenizedPairs:
    """Ids of every pair, from the cache where this text met this vocabulary before.

    `fingerprint` stands for the text of `pairs`; `description` labels the progress bar. With
    `dropout` the pairs follow one another `dropout.samples` times, split differently each time.
    Raises `ConfigError` if the cache cannot be written, or the vocabulary lacks a tag.
    """
    samples = dropout.samples if dropout else 1
    tagged = _tagged(pairs.parts, tokenizer)
    key = f"{_FORMAT} {fingerprint} {tokenizer.fingerprint} {dropout or ''} {tagged or ''}".rstrip()
    path = cache_directory / f"{hashlib.sha256(key.encode()).hexdigest()}.tokens"
    # Ids of up to 65,536 pieces fit in half the room.
    dtype = np.dtype("<u2" if tokenizer.vocabulary_size <= 1 << 16 else "<i4")
    if (cached := _read(path, samples * len(pairs), dtype)) is not None:
        return cached
    with _explained(cache_directory):  # before the work, not after it
        cache_directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache_directory).close()
    sides = encode_pairs(pairs, Encoder(tokenizer, dtype, dropout, tagged), description)
    with _explained(cache_directory):
        _write(path, sides)
    written = _read(path, samples * len(pairs), dtype)
    assert written is not None, f"{path} changed while it was written"
    return written


def _tagged(parts: Sequence[Part], tokenizer: Tokenizer) -> tuple[tuple[range, int], ...]:
    """The numbers of the pairs of each part with a tag, and the tag's id."""
    ends = itertools.accumulate(part.count for part in parts)
    return tuple(
        (range(end - part.count, end), tokenizer.tag_id(part.tag))
        for part, end in zip(parts, ends, strict=True)
        if part.tag is not None
    )


@contextmanager
def _explained(cache_directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"the token cache in {cache_directory} cannot be written ({error.strerror}): make room "
            "there, or name another folder in the environment variable XDG_CACHE_HOME"
        ) from None


def _write(path: Path, sides: list[list[Encoded]]) -> None:
    offsets = [
        np.concatenate([[0], *(part.lengths for part in side)]).astype("<i8").cumsum()
        for side in sides
    ]
    source, target = offsets
    with whole_file(path) as file:
        file.write(_HEADER.pack(_MARK, len(source) - 1, source[-1], target[-1]))
        for array in itertools.chain(offsets, *([part.ids for part in side] for side in sides)):
            file.write(array.data)


def _read(path: Path, num_pairs: int, dtype: np.dtype) -> TokenizedPairs | None:
    """The cached ids, or None where there are none or the file is not whole."""
    try:
        memory = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
    except (OSError, ValueError):  # absent, or empty
        return None
    if len(memory) < _HEADER.size:
        return None
    mark, pairs, *sizes = _HEADER.unpack_from(memory.data)
    blocks = [(np.dtype("<i8"), pairs + 1)] * 2 + [(dtype, size) for size in sizes]
    expected = _HEADER.size + sum(block_type.itemsize * size for block_type, size in blocks)
    if mark != _MARK or pairs != num_pairs or len(memory) != expected:
        return None
    arrays, start = [], _HEADER.size
    for block_type, size in blocks:
        end = start + block_type.itemsize * size
        arrays.append(memory[start:end].view(block_type))
        start = end
    rows = [
        RaggedArray(values, offsets) for offsets, values in zip(arrays[:2], arrays[2:], strict=True)
    ]
    if any(row.offsets[0] != 0 or row.offsets[-1] != len(row.values) for row in rows):
        return None
    return TokenizedPairs(*rows)
