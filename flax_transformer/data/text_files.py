"""Aligned text files as a corpus: `<name>.<language>` twice or one TSV file; plain, .gz or .xz.

Lines end at "\\n" alone (a "\\r" before it is dropped): Unicode's other line separators occur
inside sentences, and splitting there would put the two languages out of step.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np

from flax_transformer.config import TextFiles
from flax_transformer.config.data import TrainingFiles
from flax_transformer.data.pairs import Pair, Pairs, Part, hash_contents
from flax_transformer.data.plain_text import BLOCK, read_text
from flax_transformer.errors import UserError

_COMPRESSIONS = ("", ".gz", ".xz")
_MARKED_LINE = b"\n\xef\xbb\xbf"


@dataclass(frozen=True)
class TabSeparated:
    """A file of which each line is a pair; `swapped` where the target comes first."""

    path: Path
    swapped: bool = False


Files = TabSeparated | tuple[Path, Path]
"""One file, or the source's and the target's."""


def title_and_loaders(config: TextFiles) -> tuple[str, dict[str, Callable[[], Pairs]]]:
    """Returns what to call the corpus, and how to read each split.

    Raises `UserError` for missing files.
    """
    # Not Path's own: it raises for an unknown ~user, and for a name that is too long.
    directory = Path(os.path.expanduser(config.directory))
    if not os.path.isdir(directory):
        raise UserError(f"data.directory is {directory}, which is not a folder")
    if not config.train:
        raise UserError("data.train names no files: give at least one name")
    if clash := {"train", "validation"}.intersection(config.test):
        raise UserError(
            f"data.test names '{clash.pop()}', which is taken by another split: rename the files"
        )
    languages = (config.source_language, config.target_language)
    find = partial(find_files, directory, languages)
    training = config.training_files
    loaders: dict[str, Callable[[], Pairs]] = {
        "train": partial(
            TextPairs, [find("data.train", files.name) for files in training], training
        ),
        "validation": partial(TextPairs, [find("data.validation", config.validation)]),
        **{name: partial(TextPairs, [find("data.test", name)]) for name in config.test},
    }
    return f"Text files in {directory}, {' -> '.join(languages)}", loaders


@dataclass(frozen=True)
class _Column:
    """One side of a text: sentence i is content[starts[i]:ends[i]].

    A sentence takes 16 bytes besides its text, where a list of str takes 60 and more.
    """

    content: bytearray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> str:
        return str(self.content[self.starts[index] : self.ends[index]], "utf-8")


class TextPairs(Pairs):
    """The pairs of one split, whose files follow one another.

    training: the settings of each of these files, where they are training text.

    Raises `UserError`, with the file and the line, for files that cannot be decompressed, are not
    text or are not aligned.
    """

    def __init__(self, files: Sequence[Files], training: Sequence[TrainingFiles] | None = None):
        # Decompression releases the interpreter lock, so the files are read side by side.
        with ThreadPoolExecutor() as pool:
            contents = list(pool.map(_read, [path for one in files for path in _paths(one)]))
        self._files, self._contents, self._training = files, contents, training
        remaining = iter(contents)
        self._columns = [
            _tab_separated_columns(one, next(remaining))
            if isinstance(one, TabSeparated)
            else _aligned_columns(one, [next(remaining) for _ in one])
            for one in files
        ]
        self._starts = list(accumulate((len(source) for source, _ in self._columns), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def parts(self) -> tuple[Part, ...]:
        if self._training is None:
            return super().parts
        return tuple(
            Part(files.name, len(source), files.weight, files.tag)
            for files, (source, _) in zip(self._training, self._columns, strict=True)
        )

    def _pair(self, index: int) -> Pair:
        number = bisect_right(self._starts, index) - 1
        source, target = self._columns[number]
        line = index - self._starts[number]
        return source[line], target[line]

    def _pairs(self, indices: range) -> list[Pair]:
        return [self._pair(index) for index in indices]

    def fingerprint(self) -> str:
        # The bytes alone do not tell which column is the source.
        swapped = [isinstance(one, TabSeparated) and one.swapped for one in self._files]
        return hash_contents([*self._contents, *([bytes(swapped)] if any(swapped) else [])])


def _paths(files: Files) -> tuple[Path, ...]:
    return (files.path,) if isinstance(files, TabSeparated) else files


def find_files(directory: Path, languages: tuple[str, str], setting: str, name: str) -> Files:
    """Returns the files of one split in both `languages`.

    Raises `UserError`, which begins with the `setting` that named them, where there are none.
    """
    source, target = (_first_existing(directory, f"{name}.{language}") for language in languages)
    if source and target:
        return source, target
    forward, backward = "-".join(languages), "-".join(reversed(languages))
    for ending, swapped in ((forward, False), (backward, True)):
        if tab_separated := _first_existing(directory, f"{name}.{ending}.tsv"):
            return TabSeparated(tab_separated, swapped)
    if tab_separated := _first_existing(directory, f"{name}.tsv"):
        return TabSeparated(tab_separated)
    present = sorted(path.name for path in directory.iterdir())
    listing = ", ".join(present[:30]) + (", ..." if len(present) > 30 else "")
    raise UserError(
        f"{setting} names '{name}', but {directory} holds neither both of {name}.{languages[0]} "
        f"and {name}.{languages[1]} nor {name}.{forward}.tsv, {name}.{backward}.tsv or {name}.tsv "
        f"(each also looked for with .gz and .xz). It holds: {listing or 'nothing'}"
    )


def _first_existing(directory: Path, name: str) -> Path | None:
    candidates = (directory / (name + compression) for compression in _COMPRESSIONS)
    return next((path for path in candidates if os.path.isfile(path)), None)


def _read(path: Path) -> bytearray:
    """Returns the text of a file as UTF-8, without byte order marks.

    A `bytearray` grows in place, where joining pieces would take twice the room.
    """
    content = bytearray()
    try:
        with path.open("rb", buffering=0) as file:
            for text in read_text(iter(partial(file.read, BLOCK), b""), str(path)):
                content += text.encode()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise UserError(
            f"{path} does not fit into memory: make room, or name smaller files"
        ) from None
    if _MARKED_LINE in content:  # files that were joined, each with a mark
        content = content.replace(_MARKED_LINE, b"\n")
    return content


def _aligned_columns(
    paths: Iterable[Path], contents: Iterable[bytearray]
) -> tuple[_Column, _Column]:
    source, target = (_Column(content, *_lines(content)) for content in contents)
    if len(source) != len(target):
        counts = zip(paths, (source, target), strict=True)
        raise UserError(
            "the files do not belong together line by line: "
            + ", ".join(f"{path} has {len(column):,} lines" for path, column in counts)
        )
    return source, target


def _tab_separated_columns(file: TabSeparated, content: bytearray) -> tuple[_Column, _Column]:
    """Returns source and target from the first two columns.

    Some files have more: ManyThings has a third that names the authors.
    """
    starts, ends = _lines(content)
    # With the file's end standing for two more tabs, the search below always finds one.
    tabs = np.append(_positions(content, "\t"), [len(content), len(content)])
    place = np.searchsorted(tabs, starts)
    without = np.flatnonzero(tabs[place] >= ends)
    if len(without):
        raise UserError(
            f"{file.path} line {without[0] + 1} has no tab: each line must be a sentence, a tab "
            "and the other sentence"
        )
    middle = tabs[place]
    ends = np.minimum(tabs[place + 1], ends)
    first, second = _Column(content, starts, middle), _Column(content, middle + 1, ends)
    return (second, first) if file.swapped else (first, second)


def _lines(content: bytearray) -> tuple[np.ndarray, np.ndarray]:
    """Returns where each line starts and ends, line ends left out."""
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


def _positions(content: bytearray, character: str) -> np.ndarray:
    return np.flatnonzero(np.frombuffer(content, np.uint8) == ord(character))
