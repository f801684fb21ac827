"""The words of a realised sentence, each with its origins: what in the tree it puts into words.

Both languages realise the same tree, so two words translate each other where they share an origin.
An origin is a place in the tree, such as "2/object/noun" (the noun of the object of the third item
of the sentence). A word that says several things at once has several: "mangera" is a verb and its
tense, "du" a preposition and an article.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from flax_transformer.data.builtin.lexicon import NUMERALS, VERBS, Determiner, Noun, Verb
from flax_transformer.data.builtin.structure import THERE, Agreement, Clause, PartOfSpeech

CONTENT: frozenset[PartOfSpeech] = frozenset(("noun", "name", "verb", "adjective", "adverb"))
"""What the words say of the world; the others hold a sentence together."""

Gender = Literal["masculine", "feminine"]
Number = Literal["singular", "plural"]


class Features(NamedTuple):
    """What a word shows of gender and number."""

    gender: Gender | None = None
    number: Number | None = None


NEITHER = Features()
BY_NUMBER = (Features(number="singular"), Features(number="plural"))
_BY_GENDER_AND_NUMBER = (
    (Features("masculine", "singular"), Features("masculine", "plural")),
    (Features("feminine", "singular"), Features("feminine", "plural")),
)


class RealisedWord(NamedTuple):
    """A word of a sentence in the making."""

    text: str
    part_of_speech: PartOfSpeech
    origins: tuple[str, ...]
    features: Features = NEITHER
    glued: bool = False
    """Whether it follows the word before without a space."""


Words = list[RealisedWord]


def spell(
    text: str, part_of_speech: PartOfSpeech, *origins: str, features: Features = NEITHER
) -> Words:
    """Returns the words of `text`, all of the same origins; none for an empty text."""
    if " " in text:
        return [RealisedWord(word, part_of_speech, origins, features) for word in text.split()]
    return [RealisedWord(text, part_of_speech, origins, features)] if text else []


def agreeing(agreement: Agreement) -> Features:
    """Returns the features of a word that agrees in gender and number."""
    return _BY_GENDER_AND_NUMBER[agreement.feminine][agreement.plural]


def noun_kind(noun: Noun) -> PartOfSpeech:
    """Returns what kind of word a noun is."""
    return "name" if noun.group == "name" else "noun"


def determiner_kind(determiner: Determiner) -> PartOfSpeech:
    """Returns what kind of word a determiner is."""
    return "numeral" if determiner in NUMERALS else "determiner"


def verb_kind(verb: Verb, clause: Clause) -> PartOfSpeech:
    """Returns what kind of word `verb`, or the modal, of `clause` is."""
    if verb is VERBS["be"] or clause.subject is THERE:
        return "auxiliary"
    return "modal" if verb.kind == "modal" else "verb"


def concatenate(parts: Iterable[Words]) -> Words:
    """Returns the words of all parts, one after the other."""
    return [word for part in parts for word in part]


def finish(words: Words, mark: RealisedWord) -> Words:
    """Returns a sentence: its first letter a capital, its final mark at the end."""
    first = words[0]
    capital = first.text[0].upper() + first.text[1:]
    return [first._replace(text=capital), *words[1:], mark]


def join(words: Sequence[RealisedWord]) -> str:
    """Returns the text of a sentence: before each word a space, unless it is glued."""
    return "".join([word.text if word.glued else " " + word.text for word in words])[1:]
