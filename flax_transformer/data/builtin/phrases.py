"""Expressions that translate as a whole: times, places, manners, and the words between clauses."""

from flax_transformer.data.builtin import structure as s
from flax_transformer.data.builtin.lexicon import NOUNS, VERBS
from flax_transformer.data.builtin.structure import PartOfSpeech, Phrase, Tense


def _phrases(*pairs: str, are: PartOfSpeech = "adverb") -> tuple[Phrase, ...]:
    split = (pair.split(" = ") for pair in pairs)
    return tuple(Phrase(english, french, part_of_speech=are) for english, french in split)


_COUNTS = _phrases("two = deux", "three = trois", "four = quatre", "five = cinq", "ten = dix")
_UNITS = _phrases("days = jours", "weeks = semaines", "years = ans")
_AGO = tuple(
    Phrase(f"{n.english} {unit.english} ago", f"il y a {n.french} {unit.french}")
    for n in _COUNTS
    for unit in _UNITS
)
_IN_FUTURE = tuple(
    Phrase(f"in {n.english} {unit.english}", f"dans {n.french} {unit.french}")
    for n in _COUNTS
    for unit in _UNITS
)
_PAST = _phrases(
    "yesterday = hier",
    "last week = la semaine dernière",
    "last year = la année dernière",
    "last month = le mois dernier",
    "this morning = ce matin",
    "on Monday = lundi",
    "on Sunday = dimanche",
)
_REPEATED = _phrases(
    "every day = chaque jour",
    "every morning = chaque matin",
    "every evening = chaque soir",
    "every week = chaque semaine",
    "every year = chaque année",
)
_NOW = _phrases("now = maintenant", "today = aujourd'hui", "at the moment = en ce moment")
_FUTURE = _phrases(
    "tomorrow = demain",
    "next week = la semaine prochaine",
    "next year = la année prochaine",
    "next month = le mois prochain",
    "this evening = ce soir",
    "on Monday = lundi",
    "on Sunday = dimanche",
)

TIMES: dict[Tense, tuple[Phrase, ...]] = {
    s.PRESENT: _REPEATED,
    s.PROGRESSIVE: _NOW,
    s.PAST: _PAST * 2 + _AGO,
    s.STATE_PAST: _PAST,
    s.PAST_PROGRESSIVE: _PAST,
    s.HABITUAL: _REPEATED,
    s.FUTURE: _FUTURE * 2 + _IN_FUTURE,
}
STATE_TIMES = _NOW[:2]
"""Times of "be", "have" and the modals in the present."""

FREQUENCIES = _phrases(
    "often = souvent", "always = toujours", "sometimes = parfois", "rarely = rarement"
)
NEGATABLE_FREQUENCIES = FREQUENCIES[:2]
MANNERS = _phrases("slowly = lentement", "quickly = rapidement", "quietly = calmement")
PACED = frozenset(
    VERBS[name]
    for name in (
        *("eat", "drink", "study", "write", "open", "close", "wash", "draw", "clean", "repair"),
        *("work", "dance", "swim", "run", "leave", "come", "arrive"),
    )
)
"""Verbs that can be done slowly or quickly."""
PLACELESS = frozenset(VERBS[name] for name in ("visit", "clean", "leave", "go out", "fall"))
"""Verbs that are used without a place or company."""

COMPANIONS = _phrases("with = avec", "without = sans", are="preposition")
IN, AT, ON, FROM, TO = _phrases(
    "in = dans", "at = à", "on = sur", "from = de", "to = à", are="preposition"
)
AROUND = _phrases("near = près de", "behind = derrière", "in front of = devant", are="preposition")

_REACHED = "school market park hospital church library station restaurant village hotel office"
DESTINATIONS = tuple(NOUNS[name] for name in (*_REACHED.split(), "castle", "beach"))
MEETING_PLACES = tuple(noun for noun in DESTINATIONS if noun is not NOUNS["village"])
OPEN_PLACES = (NOUNS["beach"], NOUNS["island"])
"""Places that one is on, and not in."""

(COMMA,) = _phrases(", = ,", are="punctuation")
AND, BUT, BECAUSE, THAT, WHEN, IF, WHILE, SO = _phrases(
    "and = et",
    "but = mais",
    "because = parce que",
    "that = que",
    "when = quand",
    "if = si",
    "while = pendant que",
    "so = donc",
    are="conjunction",
)
WHERE = ("where", "où est-ce que")
WHEN_ASKED = ("when", "quand est-ce que")
WHY = ("why", "pourquoi est-ce que")
WHAT = ("what", "que est-ce que")
WHOM = ("who", "qui est-ce que")
