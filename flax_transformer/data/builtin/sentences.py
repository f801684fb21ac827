"""Draws whole sentences: statements, questions, and clauses linked to one another."""

from flax_transformer.data.builtin import circumstances as at
from flax_transformer.data.builtin import clauses as c
from flax_transformer.data.builtin import phrases as p
from flax_transformer.data.builtin import structure as s
from flax_transformer.data.builtin.lexicon import HOW_MANY, NOUN_GROUPS, VERBS, Verb
from flax_transformer.data.builtin.noun_phrases import Draw, counted, existing
from flax_transformer.data.builtin.structure import Clause, NounPhrase, Phrase, Question, Sentence

_FRAMES = (at.PRESENT,) * 3 + (at.PAST,) * 4 + (at.FUTURE,) * 3
_ALL_FRAMES = (*_FRAMES, at.HABIT)

# Links between clauses, with the frames of the clauses before and after them.
_LINKS = (
    (p.BECAUSE, at.PRESENT, at.PRESENT),
    (p.BECAUSE, at.PRESENT, at.PAST),
    (p.BECAUSE, at.PAST, at.PAST),
    (p.BECAUSE, at.FUTURE, at.PRESENT),
    (p.AND, at.PRESENT, at.PRESENT),
    (p.AND, at.PAST, at.PAST),
    (p.AND, at.PAST, at.PAST),
    (p.AND, at.FUTURE, at.FUTURE),
    (p.AND, at.HABIT, at.HABIT),
    (p.BECAUSE, at.HABIT, at.HABIT),
    (p.BUT, at.PRESENT, at.PRESENT),
    (p.BUT, at.PAST, at.PAST),
    (p.BUT, at.PAST, at.FUTURE),
    (p.SO, at.PRESENT, at.FUTURE),
    (p.SO, at.PAST, at.PAST),
    (p.WHEN, at.FUTURE, at.AFTER_WHEN),
    (p.WHEN, at.PRESENT, at.PRESENT),
    (p.WHEN, at.BACKGROUND, at.PAST),
    (p.WHILE, at.PAST, at.BACKGROUND),
    (p.IF, at.FUTURE, at.PRESENT),
)
# Subordinate clauses that come first, with their frame and that of the main clause.
_OPENINGS = (
    (p.WHEN, at.AFTER_WHEN, at.FUTURE),
    (p.WHEN, at.PAST, at.BACKGROUND),
    (p.WHEN, at.PRESENT, at.PRESENT),
    (p.WHILE, at.BACKGROUND, at.PAST),
    (p.IF, at.PRESENT, at.FUTURE),
    (p.IF, at.PRESENT, at.PRESENT),
)
_POSITIVE = (p.WHEN, p.WHILE)
"""Links whose clause is never negated."""
_PAUSING = (p.BUT, p.SO)
"""Links with a comma before them."""
_EXTENSIONS = (p.AND, p.BUT, p.SO)
_THOUGHTS = (VERBS["think"], VERBS["think"], VERBS["know"], VERBS["say"], VERBS["say"])
_THINGS_ASKED = tuple(
    verb
    for verb in VERBS.values()
    if verb.kind in ("transitive", "giving") and "person" not in verb.groups
)
_PEOPLE_ASKED = tuple(
    verb for verb in VERBS.values() if verb.kind == "transitive" and "person" in verb.groups
)
_COUNTED = ("fruit", "document", "clothing", "object", "vehicle")
_EXISTING = ("person", "animal", "fruit", "food", "drink", *_COUNTED)


def sentence(draw: Draw) -> Sentence:
    """Draws any sentence of the corpus; then `draw.withheld` says whether it is to be withheld."""
    draw.withheld = False
    return draw.pick(_KINDS)(draw)


def _simple(draw: Draw) -> Sentence:
    clause = c.clause(draw, draw.pick(_ALL_FRAMES))
    time = _time(draw, clause) if draw.chance(0.4) else None
    if time is None:
        return Sentence((clause,))
    if draw.chance(0.35):
        return Sentence((time, p.COMMA, clause))
    return Sentence((_add(clause, time),))


def _time(draw: Draw, clause: Clause) -> Phrase | None:
    """Draws when the clause happens; None where that cannot be added to what it says already."""
    if clause.frequency is not None or clause.polarity in (s.NEVER, s.NO_LONGER):
        return None
    if clause.tense is s.PRESENT and (clause.modal or clause.verb).aspect == "state":
        return draw.pick(p.STATE_TIMES)
    times = p.TIMES.get(clause.tense)
    return draw.pick(times) if times else None


def _add(clause: Clause, adverbial: Phrase) -> Clause:
    return clause._replace(adverbials=(*clause.adverbials, adverbial))


def _linked(draw: Draw) -> Sentence:
    link, before, after = draw.pick(_LINKS)
    first = c.clause(draw, before)
    second = c.clause(draw, after, first, positive=link in _POSITIVE)
    return Sentence((first, p.COMMA, link, second) if link in _PAUSING else (first, link, second))


def _opened(draw: Draw) -> Sentence:
    link, before, after = draw.pick(_OPENINGS)
    first = c.clause(draw, before, positive=link in _POSITIVE)
    return Sentence((link, first, p.COMMA, c.clause(draw, after, first)))


def _long(draw: Draw) -> Sentence:
    """Draws three clauses, sometimes with a time before them."""
    items: list[Clause | Question | Phrase] = []
    frame = draw.pick(_FRAMES)
    clause = c.clause(draw, frame)
    if time := _time(draw, clause):
        items += [time, p.COMMA]
    items.append(clause)
    for link in (p.AND, draw.pick(_EXTENSIONS)):
        clause = c.clause(draw, frame, clause)
        items += [p.COMMA, link, clause]
    return Sentence(tuple(items))


def _reported(draw: Draw) -> Sentence:
    """Draws "Marie thinks that ..."; after the past, only what French puts in the imparfait."""
    past = draw.chance(0.35)
    verb = draw.pick(_THOUGHTS)
    subject = c.person(draw)
    tense = s.PRESENT if not past else s.STATE_PAST if verb.aspect == "state" else s.PAST
    first = Clause(subject, verb, tense)
    frame = at.BACKGROUND if past else draw.pick(_FRAMES)
    return Sentence((first, p.THAT, c.clause(draw, frame, first)))


def _existential(draw: Draw) -> Sentence:
    group = draw.pick(_EXISTING)
    there = existing(draw, draw.pick(NOUN_GROUPS[group]))
    polarity = s.NOT if there.determiner.indefinite and draw.chance(0.25) else None
    tense = draw.pick((s.PRESENT, s.PRESENT, s.STATE_PAST, s.FUTURE))
    clause = Clause(s.THERE, VERBS["have"], tense, there, polarity=polarity)
    if polarity is None:
        clause = clause._replace(object=c.with_relative(draw, there))
    clause = _add(clause, at.place(draw))
    if polarity is None and draw.chance(0.2):
        return Sentence((Question(clause),), "?")
    return Sentence((clause,))


def _asked(draw: Draw) -> Sentence:
    """Draws a question: Does Marie sleep? Where did Paul eat the apple?"""
    subject, group = c.subject_of(draw)
    clause = c.predicate(draw, subject, group, draw.pick(_FRAMES), positive=True)
    moving = clause.verb.aspect != "state" and not clause.adverbials
    number = draw.number()
    if number < 0.2 and moving and clause.verb.kind != "attitude":
        return Sentence((Question(clause, *p.WHERE),), "?")
    if number < 0.35 and moving and clause.tense in (s.PAST, s.FUTURE):
        return Sentence((Question(clause, *p.WHEN_ASKED),), "?")
    if number < 0.5:
        return Sentence((Question(clause, *p.WHY),), "?")
    time = _time(draw, clause) if draw.chance(0.3) else None
    return Sentence((Question(clause if time is None else _add(clause, time)),), "?")


def _asked_for_subject(draw: Draw) -> Sentence:
    """Draws a question for the subject: Who ate the apple?"""
    return Sentence((c.predicate(draw, s.WHO, "person", draw.pick(_FRAMES)),), "?")


def _asked_for_object(draw: Draw) -> Sentence:
    """Draws a question for the object.

    What does Marie eat? Who does she see? How many apples did she buy?
    """
    subject = c.person(draw)
    number = draw.number()
    verb = draw.pick(_PEOPLE_ASKED if number < 0.3 else _THINGS_ASKED)
    words, asked, gap = p.WHOM if number < 0.3 else p.WHAT, None, s.THIRD[0][0]
    if number > 0.6:
        verb, asked = _number_asked(draw)
        words, gap = ("", "est-ce que"), asked.agreement
    recipient = c.recipient_of(draw, subject, False) if verb.kind == "giving" else None
    clause = Clause(subject, verb, recipient=recipient, gap=gap)
    clause = at.finish(draw, clause, draw.pick(_FRAMES), positive=True, brief=draw.chance(0.6))
    return Sentence((Question(clause, *words, asked=asked),), "?")


def _number_asked(draw: Draw) -> tuple[Verb, NounPhrase]:
    group = draw.pick(_COUNTED)
    verb = draw.pick([verb for verb in _THINGS_ASKED if group in verb.groups])
    noun = draw.pick(NOUN_GROUPS[group])
    draw.note_object(verb, noun)
    return verb, counted(draw, noun, HOW_MANY)


_KINDS = (
    (_simple,) * 9
    + (_linked,) * 4
    + (_opened,) * 2
    + (_reported,) * 2
    + (_asked,) * 2
    + (_existential, _asked_for_subject, _asked_for_object, _long)
)
