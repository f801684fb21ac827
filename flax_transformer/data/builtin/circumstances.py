"""Draws when, where, how and whether: tense, modal, negation, adverbs and places of a clause."""

from flax_transformer.data.builtin import phrases as p
from flax_transformer.data.builtin import structure as s
from flax_transformer.data.builtin.lexicon import NOUN_GROUPS, VERBS, Verb
from flax_transformer.data.builtin.noun_phrases import PEOPLE, Draw, definite
from flax_transformer.data.builtin.structure import Clause, Phrase, Pronoun
from flax_transformer.data.builtin.withheld import WITHHELD_CLITIC_VERBS

PRESENT, PAST, HABIT, BACKGROUND = "present", "past", "habit", "background"
FUTURE, AFTER_WHEN = "future", "after when"
"""When a clause happens: the frame that its tense is chosen from."""

_INDOORS = tuple(noun for noun in NOUN_GROUPS["place"] if noun not in p.OPEN_PLACES)
_WISHES = (VERBS["want to"], VERBS["can"])
_OTHERS = (s.HE, s.SHE, s.THEY[0])
OBJECT_PRONOUNS = (
    (*_OTHERS, s.YOU),
    (*_OTHERS, s.I, s.YOU, s.WE),
    (*_OTHERS, s.YOU),
    (*_OTHERS, s.I, s.WE),
    (*_OTHERS, s.I, s.YOU, s.WE),
)
"""Object pronouns by the person of the subject, so that nobody is both subject and object."""
_FREQUENT = (s.PRESENT, s.PAST, s.FUTURE)
_NEGATIONS = (s.NOT,) * 3 + (s.NEVER, s.NO_LONGER)
_POLARITIES = {
    s.PRESENT: _NEGATIONS,
    s.PROGRESSIVE: (s.NOT, s.NOT, s.NO_LONGER),
    s.PAST: (s.NOT, s.NOT, s.NEVER),
    s.STATE_PAST: _NEGATIONS,
    s.PAST_PROGRESSIVE: (s.NOT, s.NOT, s.NO_LONGER),
    s.HABITUAL: (None,),
    s.FUTURE: _NEGATIONS,
    s.AFTER_WHEN: (s.NOT,),
}


def finish(
    draw: Draw, clause: Clause, frame: str, *, positive: bool = False, brief: bool = False
) -> Clause:
    """Settles tense, modal, negation and adverbs; `brief` leaves out places and companions."""
    modal = None
    if frame in (PRESENT, PAST) and clause.verb.aspect in ("active", "event") and draw.chance(0.13):
        modal = VERBS["must"] if frame == PRESENT and draw.chance(0.3) else draw.pick(_WISHES)
    tense = _tense(draw, frame, modal or clause.verb)
    polarity = frequency = None
    if not positive and draw.chance(0.26):
        polarity = draw.pick(_POLARITIES[tense])
        if clause.attribute is not None and clause.attribute.than is not None:
            polarity = s.NOT  # "no longer older" would be "plus plus vieux"
    if modal is None and tense in _FREQUENT and draw.chance(0.1):
        if positive or polarity is s.NOT:
            frequency = draw.pick(p.NEGATABLE_FREQUENCIES)
        elif polarity is None:
            frequency = draw.pick(p.FREQUENCIES)
    adverbials = clause.adverbials if brief else clause.adverbials + _adverbials(draw, clause)
    if (
        polarity is not None
        and tense is s.FUTURE
        and clause.verb.name in WITHHELD_CLITIC_VERBS
        and (isinstance(clause.object, Pronoun) or isinstance(clause.recipient, Pronoun))
    ):
        draw.withheld = True
    return clause._replace(
        tense=tense, modal=modal, polarity=polarity, frequency=frequency, adverbials=adverbials
    )


def _tense(draw: Draw, frame: str, verb: Verb) -> s.Tense:
    state = verb.aspect == "state"
    if frame == FUTURE:
        return s.FUTURE
    if frame == AFTER_WHEN:
        return s.AFTER_WHEN
    if frame == BACKGROUND:
        return s.STATE_PAST if state else s.PAST_PROGRESSIVE
    active = verb.aspect == "active"
    if frame == PRESENT:
        return s.PROGRESSIVE if active and draw.chance(0.5) else s.PRESENT
    if state:
        return s.STATE_PAST
    if frame == HABIT:
        return s.HABITUAL
    return s.PAST_PROGRESSIVE if active and draw.chance(0.25) else s.PAST


def _adverbials(draw: Draw, clause: Clause) -> tuple[Phrase, ...]:
    verb, number = clause.verb, draw.number()
    if number < 0.1 and verb in p.PACED:
        return (draw.pick(p.MANNERS),)
    if verb.aspect == "state" or verb.kind == "giving" or verb in p.PLACELESS:
        return ()
    if number < 0.18:
        companion = draw.pick(p.COMPANIONS)
        if draw.chance(0.4):
            pronoun = draw.pick(OBJECT_PRONOUNS[clause.subject.agreement.person])
            return (companion._replace(complement=pronoun),)
        return (companion._replace(complement=definite(draw, draw.pick(PEOPLE))),)
    if number < (0.5 if verb.kind == "plain" else 0.3) and verb.kind != "motion":
        return (place(draw),)
    return ()


def destination(draw: Draw, verb: Verb) -> Phrase:
    """Draws the place that a verb of motion needs: to the market, from the station."""
    preposition = {"come": p.FROM, "arrive": p.AT}.get(verb.name, p.TO)
    return preposition._replace(complement=definite(draw, draw.pick(p.DESTINATIONS)))


def place(draw: Draw) -> Phrase:
    """Draws a place: in the garden, at school, near the house."""
    number = draw.number()
    if number < 0.4:
        return p.IN._replace(complement=definite(draw, draw.pick(_INDOORS)))
    if number < 0.6:
        return p.AT._replace(complement=definite(draw, draw.pick(p.MEETING_PLACES)))
    if number < 0.7:
        return p.ON._replace(complement=definite(draw, draw.pick(p.OPEN_PLACES)))
    near = draw.pick(p.AROUND)
    return near._replace(complement=definite(draw, draw.pick(NOUN_GROUPS["place"])))
