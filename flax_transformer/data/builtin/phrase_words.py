"""The words of the fixed phrases: what each is, and which of them translate each other.

A phrase is drawn and translated as a whole: "two days ago" as "il y a deux jours". The nouns and
numerals in it have translations of their own all the same; the words that are left over on both
sides, "ago" and "il y a", translate each other together.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from flax_transformer.data.builtin.lexicon import NUMERALS
from flax_transformer.data.builtin.structure import THIRD, Agreement, PartOfSpeech, Phrase
from flax_transformer.data.builtin.words import (
    BY_NUMBER,
    NEITHER,
    Features,
    RealisedWord,
    Words,
    agreeing,
)


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
"""Any other word that is left over is of the phrase's part of speech."""

_AGREEING: tuple[PartOfSpeech, ...] = ("noun", "adjective", "determiner")


def english_words(phrase: Phrase, place: str) -> Words:
    """Returns the English words of the phrase at `place`, its complement left out."""
    return _placed(_both(*phrase[:2], phrase.part_of_speech)[0], place)


def french_words(phrase: Phrase, place: str) -> Words:
    """Returns the French words of the phrase at `place`, its complement left out."""
    return _placed(_both(*phrase[:2], phrase.part_of_speech)[1], place)


def _placed(words: Words, place: str) -> Words:
    return [
        RealisedWord(word.text, word.part_of_speech, (place + word.origins[0],), *word[3:])
        for word in words
    ]


@cache
def _both(english: str, french: str, part_of_speech: PartOfSpeech) -> tuple[Words, Words]:
    """Returns the words of both languages; their origins count from the place of the phrase."""
    source, target = english.split(), french.split()
    own = {  # the French words that translate one English word, with this
        word: known
        for known in source
        for word in target
        if known in _KNOWN and word in _KNOWN[known].french
    }
    noun = next(filter(None, (_KNOWN[known].agreement for known in own.values())), None)

    def realised(word: str, known: str | None, shown: dict[PartOfSpeech, Features]) -> RealisedWord:
        kind = _KNOWN[known].part_of_speech if known else _LEFT_OVER.get(word, part_of_speech)
        features, glued = shown.get(kind, NEITHER), kind == "punctuation"
        return RealisedWord(word, kind, (f"/{known or ''}",), features, glued)

    number: dict[PartOfSpeech, Features] = {"noun": BY_NUMBER[noun.plural]} if noun else {}
    both = dict.fromkeys(_AGREEING, agreeing(noun)) if noun else {}
    return (
        [realised(word, word if word in own.values() else None, number) for word in source],
        [realised(word, own.get(word), both) for word in target],
    )
