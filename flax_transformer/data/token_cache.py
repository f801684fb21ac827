"""Token ids of a split, computed once and then read from disk as memory-mapped arrays."""

import hashlib
import io
import itertools
import os
import stat
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flax_transformer.data.augmentation import Augmentation
from flax_transformer.data.pairs import Pairs, Part
from flax_transformer.data.tokenizing import BpeDropout, Encoded, Encoder, encode_pairs
from flax_transformer.files.cache_directory import (
    NO_HOME,
    make_directory,
    name_another_folder,
    say_once,
)
from flax_transformer.files.whole_file import remove_left_over, whole_file
from flax_transformer.text.tokenizer import EOS_ID, Tokenizer

_FORMAT = 3
_HEADER = struct.Struct("<8sQQQ28x")  # mark, pairs, source ids, target ids
_CHECKSUM = struct.Struct("<I")  # of the file's name and of all else in it; ends the first 64 bytes
_MARK = b"FTTOKENS"


class _DamagedError(Exception):
    """Says that a file does not hold what was written to it."""


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

    @classmethod
    def of(cls, *sides: Sequence[Sequence[int]]) -> "TokenizedPairs":
        """Closes each row of ids, of the sources and of the targets."""
        return cls(*map(_closed, sides))

    def __len__(self) -> int:
        return len(self.source)


def _closed(rows: Sequence[Sequence[int]]) -> RaggedArray:
    offsets = np.cumsum([0, *(len(row) + 1 for row in rows)])
    return RaggedArray(np.array([i for row in rows for i in (*row, EOS_ID)], np.int32), offsets)


def tokenize_pairs(
    pairs: Pairs,
    tokenizer: Tokenizer,
    fingerprint: str,
    cache_directory: Path | None,
    description: str,
    dropout: BpeDropout | None = None,
    augmentation: Augmentation | None = None,
) -> TokenizedPairs:
    """Returns the ids of every pair, from the cache if this text met this vocabulary before.

    fingerprint:  stands for the text of `pairs`.
    description:  labels the progress bar.
    dropout:      all pairs follow one another `dropout.samples` times, split differently each time.
    augmentation: changes some of the pairs.

    Where nothing can be written, each process of a run holds the ids in its own memory, and the
    user is told. Raises `UserError` if the vocabulary lacks a tag.
    """
    samples = dropout.samples if dropout else 1
    tagged = _tagged(pairs.parts, tokenizer)
    drawn = " ".join(str(each) for each in (dropout, tagged, augmentation) if each)
    key = f"{_FORMAT} {fingerprint} {tokenizer.fingerprint} {drawn}"
    name = f"{hashlib.sha256(key.encode()).hexdigest()}.tokens"
    vocabulary_size = tokenizer.vocabulary_size

    def cached() -> TokenizedPairs | None:
        if cache_directory is None:
            return None
        return _read(cache_directory / name, samples * len(pairs), vocabulary_size)

    if (tokens := cached()) is not None:
        return tokens
    encoder = Encoder(tokenizer, _id_type(vocabulary_size), dropout, tagged, augmentation)
    sides = encode_pairs(pairs, encoder, description)
    if _kept(cache_directory, name, sides) and (tokens := cached()) is not None:
        return tokens
    return _in_memory(sides)


def _tagged(parts: Sequence[Part], tokenizer: Tokenizer) -> tuple[tuple[range, int], ...]:
    """Returns for each part with a tag the numbers of its pairs, and the tag's id."""
    ends = itertools.accumulate(part.count for part in parts)
    return tuple(
        (range(end - part.count, end), tokenizer.tag_id(part.tag))
        for part, end in zip(parts, ends, strict=True)
        if part.tag is not None
    )


def _id_type(vocabulary_size: int) -> np.dtype:
    # Ids of up to 65,536 pieces fit in half the room.
    return np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<i4")


def _kept(cache_directory: Path | None, name: str, sides: list[list[Encoded]]) -> bool:
    """Writes the ids and returns whether that succeeded; tells the user where it did not."""
    told = "note: token ids are held in memory, not kept for the next run"
    if cache_directory is None:
        say_once(f"{told}: {NO_HOME} ({name_another_folder('a folder')})")
        return False
    try:
        make_directory(cache_directory)
        remove_left_over(cache_directory)
        _write(cache_directory / name, sides)
    except OSError as error:
        problem = f"{cache_directory} cannot be written: {error.strerror}"
        say_once(f"{told}: {problem} ({name_another_folder()})")
        return False
    return True


def _offsets(side: list[Encoded]) -> np.ndarray:
    return np.concatenate([[0], *(part.lengths for part in side)]).astype("<i8").cumsum()


def _in_memory(sides: list[list[Encoded]]) -> TokenizedPairs:
    rows = []
    for side in sides:
        values = np.concatenate([part.ids for part in side])
        values.setflags(write=False)  # as those of a file are
        rows.append(RaggedArray(values, _offsets(side)))
    return TokenizedPairs(*rows)


def _write(path: Path, sides: list[list[Encoded]]) -> None:
    """Writes a new file, which replaces any other at `path`.

    So a file that a run has mapped is never changed nor shortened, which would end that run.
    """
    offsets = [_offsets(side) for side in sides]
    source, target = offsets
    arrays = [*offsets, *(part.ids for side in sides for part in side)]
    header = _HEADER.pack(_MARK, len(source) - 1, source[-1], target[-1])
    checksum = _start_checksum(path, header)
    for array in arrays:
        checksum = zlib.crc32(array.data, checksum)
    with whole_file(path) as file:
        file.write(header + _CHECKSUM.pack(checksum))
        for array in arrays:
            file.write(array.data)


def _start_checksum(path: Path, header: bytes) -> int:
    """Returns the checksum of the file's name and `header`.

    The name stands for text and vocabulary, so no file passes for another.
    """
    return zlib.crc32(header, zlib.crc32(path.name.encode()))


def _read(path: Path, num_pairs: int, vocabulary_size: int) -> TokenizedPairs | None:
    """Returns the cached ids, or None where there are none that can be used.

    Tells the user of a file that cannot be used.
    """
    try:
        # With these flags it neither waits for the writer of a pipe nor follows a link.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            return _verified(file, path, num_pairs, vocabulary_size)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    except _DamagedError as error:
        reason = f"is damaged ({error})"
    say_once(f"note: {path} {reason}: its token ids are made anew")
    return None


def _verified(file: io.FileIO, path: Path, num_pairs: int, vocabulary_size: int) -> TokenizedPairs:
    """Returns what a file holds, mapped into memory.

    Raises `_DamagedError` unless it is what was written.
    """
    status = os.fstat(file.fileno())
    start = _HEADER.size + _CHECKSUM.size
    if not stat.S_ISREG(status.st_mode) or status.st_size < start:
        raise _DamagedError("not a file of token ids")
    header, checksum = file.read(_HEADER.size), file.read(_CHECKSUM.size)
    mark, pairs, *sizes = _HEADER.unpack(header)
    id_type = _id_type(vocabulary_size)
    blocks = [(np.dtype("<i8"), pairs + 1)] * 2 + [(id_type, size) for size in sizes]
    expected = start + sum(block_type.itemsize * size for block_type, size in blocks)
    if mark != _MARK or pairs != num_pairs or status.st_size != expected:
        raise _DamagedError("its size differs from what its header says")
    if _CHECKSUM.pack(_checksum_of_rest(file, _start_checksum(path, header))) != checksum:
        raise _DamagedError("its checksum differs")
    memory = np.memmap(file, np.uint8, mode="r").view(np.ndarray)
    arrays = []
    for block_type, size in blocks:
        end = start + block_type.itemsize * size
        arrays.append(memory[start:end].view(block_type))
        start = end
    rows = [
        RaggedArray(values, offsets) for offsets, values in zip(arrays[:2], arrays[2:], strict=True)
    ]
    if not all(_is_sound(row, vocabulary_size) for row in rows):
        raise _DamagedError("impossible ids or rows")
    return TokenizedPairs(*rows)


def _checksum_of_rest(file: io.FileIO, checksum: int) -> int:
    """Returns the checksum of the rest of `file`, continued from `checksum`.

    Reads and does not map it: what a disk cannot read is then an error, and not the end of the
    process.
    """
    buffer = memoryview(bytearray(1 << 20))
    while count := file.readinto(buffer):
        checksum = zlib.crc32(buffer[:count], checksum)
    return checksum


def _is_sound(rows: RaggedArray, vocabulary_size: int) -> bool:
    """Returns whether the rows can be what was written.

    Each row has at least its EOS, nothing lies outside the rows, and every id is known.
    """
    values, offsets = rows.values, rows.offsets
    ends = offsets[0] == 0 and offsets[-1] == len(values)
    if not ends or not (offsets[1:] > offsets[:-1]).all():
        return False
    return len(values) == 0 or bool(values.min() >= 0 and values.max() < vocabulary_size)
