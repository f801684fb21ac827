"""Aligned text files as a corpus: `<name>.<language>` twice or `<name>.tsv`, plain, .gz or .xz.

Lines end at "\\n" alone (a "\\r" before it is dropped): Unicode's other line separators occur
inside sentences, and splitting there would put the two languages out of step.
"""

import gzip
import lzma
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np

from flax_transformer.config import TextFiles
from flax_transformer.config_error import ConfigError
from flax_transformer.data.pairs import Pair, Pairs, hash_contents

_COMPRESSIONS = ("", ".gz", ".xz")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CHECKED_BYTES = 1 << 24

Files = tuple[Path] | tuple[Path, Path]
"""The .tsv, or the source's and the target's file."""


def title_and_loaders(config: TextFiles) -> tuple[str, dict[str, Callable[[], Pairs]]]:
    """What to call the corpus, and how to read each split; `ConfigError` for missing files."""
    directory = Path(config.directory).expanduser()
    if not directory.is_dir():
        raise ConfigError(f"data.directory is {directory}, which is not a folder")
    if not config.train:
        raise ConfigError("data.train names no files: give at least one name")
    if clash := {"train", "validation"}.intersection(config.test):
        raise ConfigError(
            f"data.test names '{clash.pop()}', which is taken by another split: rename the files"
        )
    languages = (config.source_language, config.target_language)
    find = partial(find_files, directory, languages)
    splits = {
        "train": [find("data.train", name) for name in config.train],
        "validation": [find("data.validation", config.validation)],
        **{name: [find("data.test", name)] for name in config.test},
    }
    title = f"Text files in {directory}, {' -> '.join(languages)}"
    return title, {name: partial(TextPairs, files) for name, files in splits.items()}


@dataclass(frozen=True)
class _Column:
    """One side of a text: sentence i is content[starts[i]:ends[i]].

    A sentence takes 16 bytes besides its text, where a list of str takes 60 and more.
    """

    content: bytes
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> str:
        return str(self.content[self.starts[index] : self.ends[index]], "utf-8")


class TextPairs(Pairs):
    """The pairs of one split, whose files follow one another.

    Raises `ConfigError` for files that cannot be decompressed, are not UTF-8 or are not aligned,
    with the file and the line.
    """

    def __init__(self, files: Sequence[Files]):
        # Decompression releases the interpreter lock, so the files are read side by side.
        with ThreadPoolExecutor() as pool:
            contents = list(pool.map(_read, [path for paths in files for path in paths]))
        self._contents = contents
        remaining = iter(contents)
        self._parts = [
            _aligned_columns(paths, [next(remaining) for _ in paths])
            if len(paths) == 2
            else _tab_separated_columns(paths[0], next(remaining))
            for paths in files
        ]
        self._part_starts = list(accumulate((len(source) for source, _ in self._parts), initial=0))

    def __len__(self) -> int:
        return self._part_starts[-1]

    def _pair(self, index: int) -> Pair:
        part = bisect_right(self._part_starts, index) - 1
        source, target = self._parts[part]
        line = index - self._part_starts[part]
        return source[line], target[line]

    def _pairs(self, indices: range) -> list[Pair]:
        return [self._pair(index) for index in indices]

    def fingerprint(self) -> str:
        return hash_contents(self._contents)


def find_files(directory: Path, languages: tuple[str, str], setting: str, name: str) -> Files:
    """The files of one split in both `languages`; `ConfigError`, which begins with the `setting`
    that named them, where there are none."""
    source, target = (_first_existing(directory, f"{name}.{language}") for language in languages)
    if source and target:
        return source, target
    if tab_separated := _first_existing(directory, f"{name}.tsv"):
        return (tab_separated,)
    present = sorted(path.name for path in directory.iterdir())
    listing = ", ".join(present[:30]) + (", ..." if len(present) > 30 else "")
    raise ConfigError(
        f"{setting} names '{name}', but {directory} holds neither both of {name}.{languages[0]} "
        f"and {name}.{languages[1]} nor {name}.tsv (each also looked for with .gz and .xz). "
        f"It holds: {listing or 'nothing'}"
    )


def _first_existing(directory: Path, name: str) -> Path | None:
    candidates = (directory / (name + compression) for compression in _COMPRESSIONS)
    return next((path for path in candidates if path.is_file()), None)


def _read(path: Path) -> bytes:
    """The text of a file as checked UTF-8, without a byte order mark."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        elif path.suffix == ".xz":
            content = lzma.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise ConfigError(
            f"{path} is cut short or damaged ({error}): fetch or compress it again"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    content = content.removeprefix(_BYTE_ORDER_MARK)
    _check_utf8(path, content)
    return content


def _check_utf8(path: Path, content: bytes) -> None:
    # In pieces that end at a line's end, since a str takes up to four times the room of its bytes.
    start = 0
    while start < len(content):
        end = content.find(b"\n", start + _CHECKED_BYTES) + 1 or len(content)
        try:
            content[start:end].decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, start + error.start) + 1
            raise ConfigError(
                f"{path} line {line} is not UTF-8 (byte 0x{error.object[error.start]:02x}): "
                "convert the file, for instance with iconv -f LATIN1 -t UTF-8"
            ) from None
        start = end


def _aligned_columns(paths: Iterable[Path], contents: Iterable[bytes]) -> tuple[_Column, _Column]:
    source, target = (_Column(content, *_lines(content)) for content in contents)
    if len(source) != len(target):
        counts = zip(paths, (source, target), strict=True)
        raise ConfigError(
            "the files do not belong together line by line: "
            + ", ".join(f"{path} has {len(column):,} lines" for path, column in counts)
        )
    return source, target


def _tab_separated_columns(path: Path, content: bytes) -> tuple[_Column, _Column]:
    """The first two columns; ManyThings, for one, has a third that names the authors."""
    starts, ends = _lines(content)
    # With the file's end standing for two more tabs, the search below always finds one.
    tabs = np.append(_positions(content, "\t"), [len(content), len(content)])
    first = np.searchsorted(tabs, starts)
    without = np.flatnonzero(tabs[first] >= ends)
    if len(without):
        raise ConfigError(
            f"{path} line {without[0] + 1} has no tab: each line must be source, tab, target"
        )
    source_ends = tabs[first]
    target_ends = np.minimum(tabs[first + 1], ends)
    return _Column(content, starts, source_ends), _Column(content, source_ends + 1, target_ends)


def _lines(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Where each line starts and ends, line ends left out."""
    ends = _positions(content, "\n")
    starts = np.concatenate([[0], ends + 1])
    if starts[-1] == len(content):
        starts = starts[:-1]
    else:
        ends = np.append(ends, len(content))
    if len(ends):
        last = np.frombuffer(content, np.uint8)[ends - 1]
        ends = ends - ((last == ord("\r")) & (ends > starts))
    return starts, ends


def _positions(content: bytes, character: str) -> np.ndarray:
    return np.flatnonzero(np.frombuffer(content, np.uint8) == ord(character))
