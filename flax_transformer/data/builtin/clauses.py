"""Draws clauses: a subject, a verb that suits it, and what the verb takes.

A pronoun may refer to the clause before. Its gender is then settled by rule, so that the English
sentence alone decides the French one:

they, them: "they" takes the gender of the subject of the clause before, and "them" that of its
            object, where that is plural; else both are masculine.
it:         only ever refers to that subject or object.
I, we, you: are masculine.
"""

from flax_transformer.data.builtin import phrases as p
from flax_transformer.data.builtin import structure as s
from flax_transformer.data.builtin.circumstances import (
    BACKGROUND,
    FUTURE,
    OBJECT_PRONOUNS,
    PAST,
    PRESENT,
    destination,
    finish,
)
from flax_transformer.data.builtin.lexicon import ADJECTIVES, NOUN_GROUPS, VERBS, Noun, Verb
from flax_transformer.data.builtin.noun_phrases import PEOPLE, Draw, definite, existing, noun_phrase
from flax_transformer.data.builtin.structure import Clause, NounPhrase, Pronoun, Subject

OBJECTS: dict[Verb, tuple[Noun, ...]] = {
    verb: tuple(noun for group in verb.groups for noun in NOUN_GROUPS[group])
    for verb in VERBS.values()
}
_PREDICATIVE = {
    group: tuple(a for a in ADJECTIVES.values() if group in a.groups and a.english != "new")
    for group in NOUN_GROUPS
}
_COMPARABLE = {
    group: tuple(a for a in all_ if a.comparative) for group, all_ in _PREDICATIVE.items()
}
_THINGS = tuple(
    noun
    for group in ("fruit", "document", "clothing", "object", "vehicle", "fixture", "place")
    for noun in NOUN_GROUPS[group]
)


def _verbs(kind: str, animals: bool, ongoing: bool) -> tuple[Verb, ...]:
    return tuple(
        verb
        for verb in VERBS.values()
        if verb.kind == kind
        and (verb.animals or not animals)
        and (verb.aspect in ("active", "state") or not ongoing)
    )


_POOLS = {
    (kind, animals, ongoing): _verbs(kind, animals, ongoing)
    for kind in ("transitive", "giving", "plain", "motion", "reflexive")
    for animals in (False, True)
    for ongoing in (False, True)
}


def clause(
    draw: Draw, frame: str, previous: Clause | None = None, *, positive: bool = False
) -> Clause:
    """Draws any clause; with `previous`, its pronouns may refer to that clause."""
    return predicate(draw, *subject_of(draw, previous), frame, previous, positive=positive)


def predicate(
    draw: Draw,
    subject: Subject,
    group: str,
    frame: str,
    previous: Clause | None = None,
    *,
    positive: bool = False,
) -> Clause:
    """Draws a clause: something that `subject`, of the noun group `group`, is or does."""
    return finish(
        draw, _unfinished(draw, subject, group, frame, previous), frame, positive=positive
    )


def _unfinished(
    draw: Draw, subject: Subject, group: str, frame: str, previous: Clause | None
) -> Clause:
    """Draws the verb and what it must have."""
    if group in ("person", "name"):
        kind = draw.pick(_PERSON_KINDS)
    else:
        kind = draw.pick(_ANIMAL_KINDS) if group == "animal" else "copular"
    if kind == "copular":
        return Clause(subject, VERBS["be"], attribute=attribute_of(draw, subject, group))
    if kind == "having":
        owned = draw.pick(OBJECTS[VERBS["have"]])
        draw.note_object(VERBS["have"], owned)
        return Clause(subject, VERBS["have"], object=with_relative(draw, existing(draw, owned)))
    verb = draw.pick(_POOLS[kind, group == "animal", frame == BACKGROUND])
    if kind in ("transitive", "giving"):
        direct = object_of(draw, verb, subject, previous)
        clitic = isinstance(direct, Pronoun)
        recipient = recipient_of(draw, subject, clitic) if kind == "giving" else None
        return Clause(subject, verb, object=direct, recipient=recipient)
    place = (destination(draw, verb),) if kind == "motion" else ()
    return Clause(subject, verb, adverbials=place)


_PERSON_KINDS = (
    ("transitive",) * 9 + ("giving", "plain") * 3 + ("motion", "reflexive") * 2
    + ("copular",) * 2 + ("having",)
)  # fmt: skip
_ANIMAL_KINDS = ("transitive",) * 5 + ("plain",) * 3 + ("copular",) * 2 + ("motion",)


def subject_of(draw: Draw, previous: Clause | None = None) -> tuple[Subject, str]:
    """Draws a subject; returns it with its noun group."""
    before = previous.subject if previous is not None else None
    if before is not None and draw.chance(0.5):
        if isinstance(before, NounPhrase):
            return pronoun_for(before), before.noun.group
        if not isinstance(before, Pronoun):
            return s.THEY[before.agreement.feminine], "person"
        if before.agreement.person != 4 and before not in s.IT:
            return before, "person"
    number = draw.number()
    if number < 0.3:
        pronoun = draw.pick((s.I, s.YOU, s.WE, s.HE, s.SHE, s.THEY[0]))
        if pronoun is s.THEY[0] and before is not None and before.agreement.person == 4:
            pronoun = s.THEY[before.agreement.feminine]
        return pronoun, "person"
    if number < 0.37:
        return _pair(draw), "person"
    pool = PEOPLE if number < 0.82 else NOUN_GROUPS["animal"] if number < 0.91 else _THINGS
    noun = draw.pick(pool)
    phrase = definite(draw, noun, 0.35) if pool is _THINGS else noun_phrase(draw, noun)
    return with_relative(draw, phrase), noun.group


def person(draw: Draw) -> Pronoun | NounPhrase:
    """Draws a person as the subject of a short clause."""
    return draw.pick(_PERSONS) if draw.chance(0.4) else definite(draw, draw.pick(PEOPLE))


def _pair(draw: Draw) -> s.Coordination:
    first = draw.pick(PEOPLE)
    second = _other(draw, PEOPLE, first)
    return s.Coordination(noun_phrase(draw, first), noun_phrase(draw, second))


def _other(draw: Draw, nouns: tuple[Noun, ...], noun: Noun | None) -> Noun:
    """Draws one of `nouns` other than `noun`."""
    other = draw.pick(nouns)
    while other is noun:
        other = draw.pick(nouns)
    return other


def pronoun_for(phrase: NounPhrase) -> Pronoun:
    """Returns the personal pronoun that refers to `phrase`."""
    feminine = phrase.noun.feminine
    if phrase.plural:
        return s.THEY[feminine]
    if phrase.noun.group in ("person", "name"):
        return s.SHE if feminine else s.HE
    return s.IT[feminine]


def object_of(
    draw: Draw, verb: Verb, subject: Subject, previous: Clause | None = None
) -> NounPhrase | Pronoun:
    """Draws a direct object of `verb`."""
    before = previous.object if previous is not None else None
    if isinstance(before, NounPhrase) and before.noun.group in verb.groups and draw.chance(0.7):
        draw.note_object(verb, before.noun)
        return pronoun_for(before)
    if "person" in verb.groups and verb.kind == "transitive" and draw.chance(0.3):
        return _person_pronoun(draw, subject, before)
    noun = draw.pick(OBJECTS[verb])
    draw.note_object(verb, noun)
    phrase = noun_phrase(draw, noun)
    return phrase if verb.kind == "giving" else with_relative(draw, phrase)


def _person_pronoun(draw: Draw, subject: Subject, before: NounPhrase | Pronoun | None) -> Pronoun:
    pronoun = draw.pick(OBJECT_PRONOUNS[subject.agreement.person])
    if pronoun is s.THEY[0] and before is not None and before.agreement.person == 4:
        return s.THEY[before.agreement.feminine]
    return pronoun


def recipient_of(draw: Draw, subject: Subject, clitic: bool) -> NounPhrase | Pronoun:
    """Draws somebody to give to: often a pronoun, and more often beside another pronoun."""
    if draw.chance(0.7 if clitic else 0.4):
        return draw.pick(OBJECT_PRONOUNS[subject.agreement.person])
    return definite(draw, _other(draw, PEOPLE, getattr(subject, "noun", None)))


def with_relative(draw: Draw, phrase: NounPhrase) -> NounPhrase:
    """Returns `phrase`, sometimes with a relative clause."""
    group = phrase.noun.group
    if group == "name" or phrase.possessor is not None or draw.chance(0.92):
        return phrase
    frame = draw.pick((PRESENT, PRESENT, PAST, PAST, FUTURE))
    if group in ("person", "animal") and draw.chance(0.5):
        relative = _relative_on_subject(draw, phrase, frame)
    else:
        relative = _relative_on_object(draw, phrase, frame)
    return phrase._replace(relative=relative)


def _relative_on_subject(draw: Draw, phrase: NounPhrase, frame: str) -> Clause:
    """Draws a relative clause with `phrase` as its subject: who sleeps; that likes Marie."""
    subject = s.relative_subject(phrase)
    if draw.chance(0.5):
        kind = draw.pick(("plain", "plain", "reflexive"))
        verb = draw.pick(_POOLS[kind, phrase.noun.group == "animal", False])
        return finish(draw, Clause(subject, verb), frame, brief=True)
    verb = draw.pick(_POOLS["transitive", phrase.noun.group == "animal", False])
    noun = draw.pick(OBJECTS[verb])
    draw.note_object(verb, noun)
    return finish(draw, Clause(subject, verb, object=noun_phrase(draw, noun)), frame, brief=True)


def _relative_on_object(draw: Draw, phrase: NounPhrase, frame: str) -> Clause:
    """Draws a relative clause with `phrase` as its object: that Paul sees; that Marie gave me."""
    verb = draw.pick(_TAKING[phrase.noun.group])
    draw.note_object(verb, phrase.noun)
    subject = person(draw)
    recipient = recipient_of(draw, subject, False) if verb.kind == "giving" else None
    relative = Clause(subject, verb, recipient=recipient, gap=phrase.agreement)
    return finish(draw, relative, frame, brief=True)


_PERSONS = (s.I, s.YOU, s.WE, s.HE, s.SHE)
_TAKING = {
    group: tuple(
        verb
        for verb in VERBS.values()
        if group in verb.groups and verb.kind in ("transitive", "giving")
    )
    for group in NOUN_GROUPS
}


def attribute_of(draw: Draw, subject: Subject, group: str) -> s.Attribute:
    """Draws an adjective for a noun of `group`; sometimes two, or a comparison."""
    group = "person" if group == "name" else group
    number = draw.number()
    adjective = draw.pick(_PREDICATIVE[group])
    if number < 0.15:
        other = draw.pick(_PREDICATIVE[group])
        if other is not adjective:
            return s.Attribute(adjective, link=draw.pick((p.AND, p.BUT)), other=other)
    if number < 0.4 and _COMPARABLE[group]:
        rivals = PEOPLE if group == "person" else NOUN_GROUPS[group]
        than = definite(draw, _other(draw, rivals, getattr(subject, "noun", None)))
        return s.Attribute(draw.pick(_COMPARABLE[group]), than, draw.chance(0.3))
    return s.Attribute(adjective)
