"""Cuts lines that are longer than the model's source into pieces, at sentence ends if it can."""

import re
from collections.abc import Sequence

from flax_transformer.tokenizer import Tokenizer

# Where to cut, the best places first; sentences in Chinese and Japanese end without a space.
_CUTS = (re.compile(r"[.!?…][\"'”’»)\]]*\s+|[。！？]"), re.compile(r"\s+"))


def cut_lines(lines: Sequence[str], tokenizer: Tokenizer, most: int) -> list[list[list[int]]]:
    """The pieces of each line as ids, at most `most` ids each, without end symbols.

    A line that fits is one piece; one without any text has none. Of a single character that takes
    more than `most` ids, only the first of them stay.
    """
    encoded = tokenizer.encode(lines)
    return [
        _cut(line.strip(), tokenizer, most) if len(ids) > most else [ids] if line.strip() else []
        for line, ids in zip(lines, encoded, strict=True)
    ]


def _cut(text: str, tokenizer: Tokenizer, most: int) -> list[list[int]]:
    """Halves `text` until every part fits; parts without text are left out."""
    (ids,) = tokenizer.encode([text])
    if len(ids) <= most or len(text) == 1:
        return [ids[:most]] if ids and text else []
    place = _place_to_cut(text)
    halves = (text[:place].strip(), text[place:].strip())
    return [piece for half in halves for piece in _cut(half, tokenizer, most)]


def _place_to_cut(text: str) -> int:
    middle = len(text) // 2
    for cut in _CUTS:
        places = [match.end() for match in cut.finditer(text) if match.end() < len(text)]
        if places:
            return min(places, key=lambda place: abs(place - middle))
    return middle
