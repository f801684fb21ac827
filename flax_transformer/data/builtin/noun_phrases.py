"""Draws noun phrases; also has the random numbers that everything is drawn with."""

import random
from collections.abc import Sequence
from typing import TypeVar

from flax_transformer.data.builtin.lexicon import (
    ADJECTIVES,
    COLOURS,
    INDEFINITE,
    MANY,
    NAMED,
    NOUN_GROUPS,
    NUMERALS,
    PARTITIVE,
    POSSESSIVES,
    THE,
    THIS,
    Adjective,
    Determiner,
    Noun,
    Verb,
)
from flax_transformer.data.builtin.structure import NounPhrase
from flax_transformer.data.builtin.withheld import WITHHELD_ATTRIBUTES, WITHHELD_OBJECTS

T = TypeVar("T")

PEOPLE = (*NOUN_GROUPS["person"], *NOUN_GROUPS["name"] * 2)

NUMERAL = Determiner(("", ""), ("", "", ""))
POSSESSIVE = Determiner(("", ""), ("", "", ""))
"""Stand in the tables below for any numeral and any possessive."""

_SINGULAR = (THE,) * 7 + (INDEFINITE,) * 6 + (THIS,) * 3 + (POSSESSIVE,) * 4
_PLURAL = (THE,) * 6 + (INDEFINITE,) * 4 + (THIS,) * 2 + (POSSESSIVE, NUMERAL) * 3 + (MANY,) * 2
_MASS = (THE,) * 3 + (PARTITIVE,) * 5 + (THIS,) + (POSSESSIVE,) * 2
_DEFINITE = (THE,) * 5 + (THIS,) + (POSSESSIVE,) * 4
_EXISTING = (INDEFINITE,) * 4 + (NUMERAL, MANY)

_ADJECTIVES: dict[str, tuple[Adjective, ...]] = {
    group: tuple(a for a in ADJECTIVES.values() if group in a.groups) for group in NOUN_GROUPS
}
_BEFORE = {group: tuple(a for a in all_ if a.before_noun) for group, all_ in _ADJECTIVES.items()}
_COLOURS = {group: tuple(a for a in COLOURS if group in a.groups) for group in NOUN_GROUPS}


class Draw:
    """Random choices, and whether they have met a withheld combination.

    Only `random.Random.random` is used: its sequence is the same in every Python version.
    """

    def __init__(self, seed: int):
        self.number = random.Random(seed).random
        self.withheld = False

    def chance(self, probability: float) -> bool:
        """Returns True with this probability."""
        return self.number() < probability

    def pick(self, items: Sequence[T]) -> T:
        """Returns one of `items`, each as likely."""
        return items[int(self.number() * len(items))]

    def note_object(self, verb: Verb, noun: Noun) -> None:
        """Sets `withheld` if no training sentence may have this object of this verb."""
        if (verb.name, noun.english[0]) in WITHHELD_OBJECTS:
            self.withheld = True

    def note_attribute(self, adjective: Adjective, noun: Noun) -> None:
        """Sets `withheld` if no training sentence may have this adjective before this noun."""
        if (adjective.english, noun.english[0]) in WITHHELD_ATTRIBUTES:
            self.withheld = True


def noun_phrase(draw: Draw, noun: Noun) -> NounPhrase:
    """Draws any noun phrase with this noun, without a relative clause."""
    if noun.group == "name":
        return NounPhrase(NAMED, noun)
    plural = not noun.mass and draw.chance(0.35)
    adjectives = _adjectives(draw, noun)
    if draw.chance(0.08):
        return NounPhrase(THE, noun, plural, adjectives, possessor=_possessor(draw, noun))
    determiners = _MASS if noun.mass else _PLURAL if plural else _SINGULAR
    return NounPhrase(_determiner(draw, determiners), noun, plural, adjectives)


def definite(draw: Draw, noun: Noun, plural_share: float = 0.0) -> NounPhrase:
    """Draws a noun phrase that can follow any preposition: the, this, my, or a name."""
    if noun.group == "name":
        return NounPhrase(NAMED, noun)
    plural = draw.number() < plural_share
    return NounPhrase(_determiner(draw, _DEFINITE), noun, plural, _adjectives(draw, noun))


def existing(draw: Draw, noun: Noun) -> NounPhrase:
    """Draws a noun phrase as it follows "there is"."""
    plural = not noun.mass and draw.chance(0.5)
    determiner = _determiner(draw, _EXISTING) if plural else PARTITIVE if noun.mass else INDEFINITE
    return NounPhrase(determiner, noun, plural, _adjectives(draw, noun))


def counted(draw: Draw, noun: Noun, determiner: Determiner) -> NounPhrase:
    """Draws a plural noun phrase with this determiner."""
    return NounPhrase(determiner, noun, True, _adjectives(draw, noun))


def _determiner(draw: Draw, table: Sequence[Determiner]) -> Determiner:
    determiner = draw.pick(table)
    if determiner is NUMERAL:
        return draw.pick(NUMERALS)
    return draw.pick(POSSESSIVES) if determiner is POSSESSIVE else determiner


def _adjectives(draw: Draw, noun: Noun) -> tuple[Adjective, ...]:
    number = draw.number()
    if number > 0.34:
        return ()
    group = noun.group
    if number < 0.05 and _COLOURS[group]:
        adjectives: tuple[Adjective, ...] = (draw.pick(_BEFORE[group]), draw.pick(_COLOURS[group]))
    else:
        adjectives = (draw.pick(_ADJECTIVES[group]),)
    for adjective in adjectives:
        draw.note_attribute(adjective, noun)
    return adjectives


def _possessor(draw: Draw, possession: Noun) -> NounPhrase:
    group = "name" if possession.group == "person" or draw.chance(0.3) else "person"
    return definite(draw, draw.pick(NOUN_GROUPS[group]), 0.2)
