"""Placeholders for words in characters that a vocabulary has no pieces for.

Such a word (an emoji, a name in another script) can only be spelled in bytes, which a model has
hardly ever seen: it garbles them and the sentence around. So one character, which the vocabulary
does have, stands for the whole word in what the model reads. Training pairs with such characters on
both sides (data/augmentation.py) teach the model where they go. The word is put back into what the
model writes.
"""

import re
import unicodedata
from collections.abc import Mapping, Set

PLACEHOLDERS = "\ue000\ue001\ue002\ue003"
"""Characters of Unicode's private use; so many words of a line can be carried over."""

_WORD = re.compile(r"\w+|[^\w\s]+")
_SPACES = re.compile(r"\s*")
_ANY = re.compile(f"[{PLACEHOLDERS}]")
_ENDED = re.compile(r"[.!?…。！？][\"'”’»)\]]*\s*$")


def unreadable_words(text: str, readable: Set[str]) -> list[str]:
    """Returns the words of `text` with a character that is not `readable`, in order.

    Those with nothing but white space between them are one.
    """
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
    """Returns the spans of `word` to replace, where some of its characters are unknown.

    Of a word in letters that is all of it. Chinese, marks and symbols are not separated by spaces:
    of them it is only what is unknown.
    """
    if unknown.isdisjoint(word):
        return []
    if word[0].isalnum() and not any(map(_is_wide, word)):
        return [(0, len(word))]
    characters = re.escape("".join(unknown))
    return [match.span() for match in re.finditer(f"[{characters}]+", word)]


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def put_placeholders(text: str, readable: Set[str]) -> tuple[str, dict[str, str]]:
    """Returns `text` with placeholders for its unreadable words, and what each stands for.

    Words beyond the number of `PLACEHOLDERS` stay. Placeholders in `text` itself count as
    unreadable words, since they are not `readable`.
    """
    spans = _spans(text, readable)
    words: dict[str, str] = {}
    parts, place = [], 0
    for placeholder, (start, end) in zip(PLACEHOLDERS, spans, strict=False):
        words[placeholder] = text[start:end]
        parts += [text[place:start], placeholder]
        place = end
    return "".join([*parts, text[place:]]), words


def put_in_both(source: str, target: str, readable: Set[str]) -> tuple[str, str]:
    """Returns a pair in which each unreadable word of both sides is the same placeholder."""
    shared = [word for word in unreadable_words(source, readable) if word in target]
    for placeholder, word in zip(PLACEHOLDERS, shared, strict=False):
        source, target = (text.replace(word, placeholder, 1) for text in (source, target))
    return source, target


def peel(text: str, words: Mapping[str, str]) -> tuple[str, str, str]:
    """Splits a sentence with placeholders into what precedes it, the sentence, and what follows it.

    Peeled off are symbols at either end and unreadable words after the last mark of punctuation: a
    model has nothing to say to these.
    """
    before = after = ""
    while text[:1] in words and _is_symbol(words[text[0]]):
        rest = text[1:].lstrip()
        before += words[text[0]] + text[1 : len(text) - len(rest)]
        text = rest
    while text[-1:] in words and (
        _is_symbol(words[text[-1]]) or _ENDED.search(text, 0, len(text) - 1) or len(text) == 1
    ):
        rest = text[:-1].rstrip()
        after = text[len(rest) : -1] + words[text[-1]] + after
        text = rest
    return before, text, after


def _is_symbol(word: str) -> bool:
    return not any(map(str.isalnum, word))


def put_back(text: str, words: Mapping[str, str]) -> str:
    """Returns `text` with each placeholder replaced by the word that it stands for.

    A placeholder that stands for nothing, or that occurred before, is left out.
    """
    left = dict(words)
    return _ANY.sub(lambda match: left.pop(match[0], ""), text)


def are_all_there(text: str, words: Mapping[str, str]) -> bool:
    """Returns whether each placeholder of a source (the keys of `words`) is in `text`."""
    return all(placeholder in text for placeholder in words)
