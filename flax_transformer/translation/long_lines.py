"""Cuts lines that are longer than what the model was trained on into pieces, at sentence ends if it
can, and joins their translations."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from flax_transformer.text.normalization import is_blank
from flax_transformer.text.placeholders import peel, put_placeholders
from flax_transformer.text.sentences import TrainedLengths, sentence_starts, split_sentences
from flax_transformer.text.tokenizer import Tokenizer

_WHITE_SPACE = re.compile(r"\s+")


class Piece(NamedTuple):
    """A piece of a line, to be translated in one go.

    ids:      without an end symbol; none where there is nothing to translate
    words:    what the placeholders among the ids stand for
    before:   text before it that stays as it is
    after:    text after it that stays as it is
    forced:   ids that its translation begins with
    word:     then the beginning of a word, as SentencePiece writes it, in whatever pieces
    required: ids of phrases that its translation holds
    """

    ids: list[int]
    words: Mapping[str, str]
    before: str = ""
    after: str = ""
    forced: Sequence[int] = ()
    word: str = ""
    required: Sequence[Sequence[int]] = ()


def cut_lines(
    lines: Sequence[str], tokenizer: Tokenizer, most: int, trained: TrainedLengths | None = None
) -> list[list[Piece]]:
    """Returns the pieces of each line, at most `most` ids each.

    A line that fits is one piece; one with nothing to see in it has none. A line of several
    sentences that is longer than `trained` becomes pieces of whole sentences that are not, unless a
    single sentence is. Of a single character that takes more than `most` ids, only the first `most`
    stay.
    """
    marked = [_mark(line, tokenizer) for line in lines]
    encoded = tokenizer.encode([line for line, _ in marked])
    return [
        []
        if is_blank(line)
        else [
            piece
            for part, part_ids in _parts(marked_line, ids, tokenizer, trained)
            for piece in _pieces(part, part_ids, words, tokenizer, most)
        ]
        for line, (marked_line, words), ids in zip(lines, marked, encoded, strict=True)
    ]


def mark_pair(source: str, target: str, tokenizer: Tokenizer) -> tuple[str, str]:
    """Returns a line and a translation of it with the same placeholders for the same words."""
    source, words = _mark(source, tokenizer)
    for placeholder, word in sorted(words.items(), key=lambda item: -len(item[1])):
        target = target.replace(word, placeholder, 1)
    return source, target


def _mark(line: str, tokenizer: Tokenizer) -> tuple[str, dict[str, str]]:
    """Returns the line with placeholders, and what they stand for."""
    if not tokenizer.has_placeholders or tokenizer.characters.issuperset(line):
        return line, {}
    (normalized,) = tokenizer.normalize([line])
    return put_placeholders(normalized, tokenizer.characters)


def _parts(
    line: str, ids: list[int], tokenizer: Tokenizer, trained: TrainedLengths | None
) -> list[tuple[str, list[int]]]:
    """Returns the line, or its sentences in groups no longer than `trained`, with their ids."""
    if trained is None:
        return [(line, ids)]
    sentences = split_sentences(line)
    within = len(sentences) <= trained.sentences and len(ids) <= trained.tokens
    if within or len(sentences) < 2:
        return [(line, ids)]
    lengths = map(len, tokenizer.encode(sentences))
    parts = list(_group(sentences, lengths, trained))
    return list(zip(parts, tokenizer.encode(parts), strict=True))


def _group(
    sentences: Sequence[str], lengths: Iterator[int], trained: TrainedLengths
) -> Iterator[str]:
    group: list[str] = []
    tokens = 0
    for sentence, length in zip(sentences, lengths, strict=True):
        if group and (len(group) == trained.sentences or tokens + length > trained.tokens):
            yield join_texts(group)
            group, tokens = [], 0
        group.append(sentence)
        tokens += length
    yield join_texts(group)


def join_texts(texts: Sequence[str]) -> str:
    """Joins `texts`, with a space between them unless the script has none."""
    joined = ""
    for text in filter(None, texts):
        joined += f" {text}" if joined and not _is_wide(joined[-1]) else text
    return joined


def _is_wide(character: str) -> bool:
    """Returns whether `character` is wide, as characters and marks of Chinese and Japanese are."""
    return unicodedata.east_asian_width(character) in ("W", "F") and not (
        "가" <= character <= "힣" or unicodedata.category(character) == "So"
    )


def _pieces(
    text: str, ids: list[int], words: Mapping[str, str], tokenizer: Tokenizer, most: int
) -> list[Piece]:
    """Returns what of `text` can be translated, in pieces, with the ends that stay as they are."""
    before, sentence, after = peel(text, words)
    if before or after:
        (ids,) = tokenizer.encode([sentence])
    fitting = [ids] if len(ids) <= most else _cut(sentence.strip(), tokenizer, most)
    texts = tokenizer.decode(fitting) if words else [""] * len(fitting)
    pieces = [
        Piece(part, {each: word for each, word in words.items() if each in part_text})
        for part, part_text in zip(fitting, texts, strict=True)
    ]
    pieces[0] = pieces[0]._replace(before=before)
    pieces[-1] = pieces[-1]._replace(after=after)
    return pieces


def _cut(text: str, tokenizer: Tokenizer, most: int) -> list[list[int]]:
    """Halves `text` until every piece fits; pieces without text are left out."""
    (ids,) = tokenizer.encode([text])
    if len(ids) <= most or len(text) == 1:
        return [ids[:most]] if ids and text else []
    place = _place_to_cut(text)
    halves = (text[:place].strip(), text[place:].strip())
    return [piece for half in halves for piece in _cut(half, tokenizer, most)]


def _place_to_cut(text: str) -> int:
    middle = len(text) // 2
    spaces = (match.end() for match in _WHITE_SPACE.finditer(text))
    for places in (sentence_starts(text), [place for place in spaces if place < len(text)]):
        if places:
            return min(places, key=lambda place: abs(place - middle))
    return middle
