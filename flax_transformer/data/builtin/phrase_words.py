"""The words of the fixed phrases: what each is, and which of them translate each other.

A phrase is drawn and translated as a whole: "two days ago" as "il y a deux jours". The nouns and
numerals in it have translations of their own all the same; the words that are left over on both
sides, "ago" and "il y a", translate each other together.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from flax_transformer.data.builtin.lexicon import NUMERALS
from flax_transformer.data.builtin.structure import THIRD, Agreement, Phrase
from flax_transformer.data.builtin.words import PartOfSpeech, RealisedWord, Words, spell


class _Known(NamedTuple):
    """A word with a translation of its own, in any of some forms."""

    part_of_speech: PartOfSpeech
    french: tuple[str, ...]
    agreement: Agreement | None = None


_NOUNS = (
    "day jour m, days jours m, week semaine f, weeks semaines f, year année f, years ans m, "
    "month mois m, morning matin m, evening soir m, moment moment m, Monday lundi m, "
    "Sunday dimanche m"
)


def _known() -> Iterator[tuple[str, _Known]]:
    """Yields what is known of each English word."""
    for entry in _NOUNS.split(", "):
        english, french, gender = entry.split()
        agreement = THIRD[english.endswith("s")][gender == "f"]
        yield english, _Known("noun", (french,), agreement)
    for numeral in NUMERALS:
        yield numeral.english[0], _Known("numeral", numeral.french)
    yield "last", _Known("adjective", ("dernier", "dernière"))
    yield "next", _Known("adjective", ("prochain", "prochaine"))
    yield "every", _Known("determiner", ("chaque",))
    yield "this", _Known("determiner", ("ce",))
    yield "the", _Known("determiner", ("ce",))


_KNOWN = dict(_known())
_LEFT_OVER: dict[str, PartOfSpeech] = {
    **dict.fromkeys(("le", "la"), "determiner"),
    **dict.fromkeys(("ago", "il", "y", "a", "in", "dans", "at", "en", "on"), "preposition"),
}
"""Of phrases of several words; else they are of the phrase's part of speech."""


def english_words(phrase: Phrase, place: str) -> Words:
    """Returns the English words of the phrase at `place`, its complement left out."""
    return _placed(_both(*phrase[:2], phrase.part_of_speech)[0], place)


def french_words(phrase: Phrase, place: str) -> Words:
    """Returns the French words of the phrase at `place`, its complement left out."""
    return _placed(_both(*phrase[:2], phrase.part_of_speech)[1], place)


def _placed(words: Words, place: str) -> Words:
    return [word._replace(origins=(place + word.origins[0],)) for word in words]


@cache
def _both(english: str, french: str, part_of_speech: PartOfSpeech) -> tuple[Words, Words]:
    """Returns the words of both languages; their origins count from the place of the phrase."""
    source, target = english.split(), french.split()
    translated = {  # the French words that translate one English word, with this
        word: known
        for known in source
        for word in target
        if known in _KNOWN and word in _KNOWN[known].french
    }
    agreement = next(filter(None, (_KNOWN[known].agreement for known in translated.values())), None)

    def realised(word: str, known: str | None) -> RealisedWord:
        if known is None:
            kind = part_of_speech if len(target) == 1 else _LEFT_OVER.get(word, part_of_speech)
        else:
            kind = _KNOWN[known].part_of_speech
        agrees = kind in ("noun", "adjective", "determiner")
        (found,) = spell(word, kind, f"/{known or ''}", agreement=agreement if agrees else None)
        return found._replace(glued=kind == "punctuation")

    known_source = {known: known for known in translated.values()}
    return (
        [_without_gender(realised(word, known_source.get(word))) for word in source],
        [realised(word, translated.get(word)) for word in target],
    )


def _without_gender(word: RealisedWord) -> RealisedWord:
    """English has none; and of its words here only nouns have a number."""
    return word._replace(gender=None, number=word.number if word.part_of_speech == "noun" else None)
