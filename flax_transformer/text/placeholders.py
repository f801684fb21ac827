"""Placeholders for words in characters that a vocabulary has no pieces for.

Such a word (an emoji, a name in another script) can only be spelt in bytes, which a model has
hardly ever seen: it garbles them and the sentence around. So one character, which the vocabulary
does have, stands for the whole word in what the model reads; training pairs with such characters on
both sides (data/augmentation.py) teach it where they go, and the word is put back into what it
writes.
"""

import re
import unicodedata
from collections.abc import Mapping, Set

PLACEHOLDERS = "\ue000\ue001\ue002\ue003"
"""Of Unicode's private use; as many words of a line can be carried over."""

_WORD = re.compile(r"\w+|[^\w\s]+")
_SPACES = re.compile(r"\s*")
_ANY = re.compile(f"[{PLACEHOLDERS}]")
_ENDED = re.compile(r"[.!?…。！？][\"'”’»)\]]*\s*$")


def unreadable_words(text: str, readable: Set[str]) -> list[str]:
    """The words of `text` with a character that is not `readable`, in order; those with white space
    alone between them are one."""
    return [text[start:end] for start, end in _spans(text, readable)]


def _spans(text: str, readable: Set[str]) -> list[tuple[int, int]]:
    unknown = {each for each in set(text) - readable if not each.isspace()}
    if not unknown:
        return []
    spans: list[tuple[int, int]] = []
    for word in _WORD.finditer(text):
        for start, end in _unknown_parts(word[0], unknown):
            start, end = word.start() + start, word.start() + end
            if spans and _SPACES.fullmatch(text, spans[-1][1], start):
                start, _ = spans.pop()
            spans.append((start, end))
    return spans


def _unknown_parts(word: str, unknown: set[str]) -> list[tuple[int, int]]:
    """All of a `word` in letters; of Chinese, of marks and of symbols, which are not separated by
    spaces, only what is unknown."""
    if unknown.isdisjoint(word):
        return []
    if word[0].isalnum() and not any(map(_is_wide, word)):
        return [(0, len(word))]
    characters = re.escape("".join(unknown))
    return [match.span() for match in re.finditer(f"[{characters}]+", word)]


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def put_placeholders(text: str, readable: Set[str]) -> tuple[str, dict[str, str]]:
    """`text` with a placeholder for each unreadable word, as far as there are some, and what they
    stand for. Placeholders in `text` itself are such words, as they are not `readable`."""
    spans = _spans(text, readable)
    words: dict[str, str] = {}
    parts, place = [], 0
    for placeholder, (start, end) in zip(PLACEHOLDERS, spans, strict=False):
        words[placeholder] = text[start:end]
        parts += [text[place:start], placeholder]
        place = end
    return "".join([*parts, text[place:]]), words


def put_in_both(source: str, target: str, readable: Set[str]) -> tuple[str, str]:
    """A pair with the same placeholder for each unreadable word that occurs on both sides."""
    shared = [word for word in unreadable_words(source, readable) if word in target]
    for placeholder, word in zip(PLACEHOLDERS, shared, strict=False):
        source, target = (text.replace(word, placeholder, 1) for text in (source, target))
    return source, target


def peel(text: str, words: Mapping[str, str]) -> tuple[str, str, str]:
    """What stands before a sentence with placeholders, the sentence, and what stands behind it:
    symbols at either end and whatever follows the last mark of punctuation. A model has nothing to
    say to these."""
    before = behind = ""
    while text[:1] in words and _is_symbol(words[text[0]]):
        rest = text[1:].lstrip()
        before += words[text[0]] + text[1 : len(text) - len(rest)]
        text = rest
    while text[-1:] in words and (
        _is_symbol(words[text[-1]]) or _ENDED.search(text, 0, len(text) - 1) or len(text) == 1
    ):
        rest = text[:-1].rstrip()
        behind = text[len(rest) : -1] + words[text[-1]] + behind
        text = rest
    return before, text, behind


def _is_symbol(word: str) -> bool:
    return not any(map(str.isalnum, word))


def put_back(text: str, words: Mapping[str, str]) -> str:
    """`text` with what placeholders stand for, each once; nothing for those that stand for nothing
    or have been there before."""
    left = dict(words)
    return _ANY.sub(lambda match: left.pop(match[0], ""), text)


def are_all_there(text: str, words: Mapping[str, str]) -> bool:
    """Whether each placeholder of a source is in `text`."""
    return all(placeholder in text for placeholder in words)
