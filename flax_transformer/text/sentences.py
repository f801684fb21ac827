"""Where sentences end, in text of which nothing else is known."""

import itertools
import re
from typing import NamedTuple

# A sentence in Chinese or Japanese ends without a space after it.
_ENDS = re.compile(r"(\S*[.!?…][\"'”’»)\]]*)\s+(?=\S)|[。！？][”’」』）]*\s*(?=\S)")
_INITIALS = re.compile(r"(?:[^\W\d]\.)+|\d+\.")  # "J.", "z.B.", and a German "3."
_ABBREVIATIONS = frozenset([
    "abs", "art", "bd", "bzw", "ca", "capt", "col", "dr", "fig", "gen", "gov", "hon", "jr", "lt",
    "m", "mgr", "mlle", "mm", "mme", "mr", "mrs", "ms", "nr", "prof", "rep", "rev", "sen", "sgt",
    "sr", "st", "vgl", "vs",
])  # fmt: skip
_OPENING = "\"'“‘«„¿¡(["


class TrainedLengths(NamedTuple):
    """Lengths that almost no source line of a model's training text exceeds."""

    tokens: int
    """In a line, without the end symbol."""
    sentences: int
    """In a line."""


def sentence_starts(text: str) -> list[int]:
    """Returns where in `text` a sentence begins that follows another one.

    An abbreviation or an initial ends no sentence, nor does a full stop before a small letter.
    """
    starts = [match.end() for match in _ENDS.finditer(text) if _is_end(match)]
    return [start for start in starts if not _follows_on(text, start)]


def split_sentences(text: str) -> list[str]:
    """Returns the sentences of `text`, without the white space between them."""
    places = [0, *sentence_starts(text), len(text)]
    parts = [text[start:end].strip() for start, end in itertools.pairwise(places)]
    return [part for part in parts if part]


def _is_end(match: re.Match[str]) -> bool:
    word = match[1]
    if word is None or word.rstrip("\"'”’»)]")[-1:] != ".":
        return True
    word = word.lstrip(_OPENING)
    return not _INITIALS.fullmatch(word) and word[:-1].lower() not in _ABBREVIATIONS


def _follows_on(text: str, start: int) -> bool:
    following = text[start:].lstrip(_OPENING)[:1]
    return following.islower()
