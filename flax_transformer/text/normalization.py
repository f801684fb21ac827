"""Text as people have it, made uniform before it is split: the rules that a vocabulary keeps.

SentencePiece applies them, in training as in translation, and holds them in the vocabulary's file:
whoever reads that file elsewhere gets the same.
"""

import itertools
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache

_SPACE_SIGN = "\u2581"  # by which SentencePiece writes a space

_JOINERS = "\u200c\u200d"
"""They shape letters in Persian, in Indian scripts and in emoji, and so belong to the spelling."""

_SPECIAL_SPACES = "\u00a0\u2000-\u200a\u202f\u205f\u3000"
_FEWEST = 2
"""Times that a special space must be seen before it is taken for a habit."""

_BESIDE_A_SPACE = re.compile(f"(?<=(\\S))([ {_SPECIAL_SPACES}])(?=(\\S))")
_MANY_MARKS = 4


@cache
def nfc_rules() -> Mapping[str, str]:
    """Returns what each character, or letter with its accents, becomes.

    a space: every kind of white space, and SentencePiece's sign for it.
    nothing: byte order marks, control characters and what else has no width.
    its NFC: a letter and its accents, up to three; NFC is the one character that Unicode has for
             them.
    """
    rules = {}
    for code in range(1, sys.maxunicode + 1):  # SentencePiece has no rule for U+0000
        character = chr(code)
        if character.isspace() or character == _SPACE_SIGN:
            rules[character] = " "
        elif unicodedata.category(character) in ("Cc", "Cf") and character not in _JOINERS:
            rules[character] = ""
        elif unicodedata.decomposition(character)[:1] not in ("", "<") or "가" <= character <= "힣":
            rules |= _spellings(character)
    del rules[" "]
    return rules


def _spellings(character: str) -> dict[str, str]:
    """Returns the other ways of writing a character that has accents, each with its NFC."""
    composed = unicodedata.normalize("NFC", character)
    decomposed = unicodedata.normalize("NFD", character)
    letter, marks = decomposed[0], decomposed[1:]
    written = {character}
    if len(marks) < _MANY_MARKS:
        for order in itertools.permutations(marks):
            for count in range(len(order) + 1):
                first = unicodedata.normalize("NFC", letter + "".join(order[:count]))
                written.add(first + "".join(order[count:]))
    return {
        spelling: composed
        for spelling in written - {composed}
        if unicodedata.normalize("NFC", spelling) == composed
    }


def typographic_spaces(texts: Iterable[str]) -> dict[str, str]:
    """Returns how `texts` write spaces that are not to be broken, such as before a French "!".

    Each key is a mark of punctuation or a symbol with a space before or after it, or two digits
    with a space between them. Its value is the same with the space that most of them have.
    """
    found: dict[str, Counter[str]] = {}
    for text in texts:
        for before, space, after in _BESIDE_A_SPACE.findall(text):
            if before.isdecimal() and after.isdecimal():
                found.setdefault("0 0", Counter())[space] += 1
                continue
            for mark, place in ((before, f"{before} "), (after, f" {after}")):
                if unicodedata.category(mark)[0] in "PS":
                    found.setdefault(place, Counter())[space] += 1
    spaces = {}
    for place, counts in found.items():
        ((space, count),) = counts.most_common(1)
        if space != " " and count >= max(_FEWEST, counts.total() / 2):
            spaces[place] = place.replace(" ", space)
    if number := spaces.pop("0 0", None):
        for one, other in itertools.product("0123456789", repeat=2):
            spaces[f"{one} {other}"] = f"{one}{number[1]}{other}"
    return spaces


def as_rules(rules: Mapping[str, str]) -> str:
    """Returns the rules as SentencePiece reads them: hexadecimal code points, one rule per line."""

    def codes(text: str) -> str:
        return " ".join(f"{ord(character):X}" for character in text)

    return "".join(f"{codes(before)}\t{codes(after)}\n" for before, after in sorted(rules.items()))


def is_blank(text: str) -> bool:
    """Returns whether there is nothing to see in `text`, and so nothing to translate."""
    return not any(map(_is_visible, text))


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) not in _INVISIBLE and character != _SPACE_SIGN


_INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")
