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
_GENDERS: tuple[Gender, Gender] = ("masculine", "feminine")
_NUMBERS: tuple[Number, Number] = ("singular", "plural")


class RealisedWord(NamedTuple):
    """A word of a sentence in the making."""

    text: str
    part_of_speech: PartOfSpeech
    origins: tuple[str, ...]
    gender: Gender | None = None
    number: Number | None = None
    glued: bool = False
    """Whether it follows the word before without a space."""


Words = list[RealisedWord]


def spell(
    text: str,
    part_of_speech: PartOfSpeech,
    *origins: str,
    agreement: Agreement | None = None,
    plural: bool | None = None,
) -> Words:
    """Returns the words of `text`, all of the same origins; none for an empty text.

    agreement: gives them gender and number
    plural:    gives them number alone
    """
    gender = number = None
    if agreement is not None:
        gender, plural = _GENDERS[agreement.feminine], agreement.plural
    if plural is not None:
        number = _NUMBERS[plural]
    return [RealisedWord(word, part_of_speech, origins, gender, number) for word in text.split()]


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
    """Returns the text, with a space between two words that are not glued."""
    return "".join(word.text if word.glued else " " + word.text for word in words).lstrip()
