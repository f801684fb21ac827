"""What a sentence says, before it is put into words: the one tree that both languages realise."""

from typing import Literal, NamedTuple, Union

from flax_transformer.data.builtin.lexicon import Adjective, Determiner, Noun, Verb

PartOfSpeech = Literal[
    "noun", "name", "verb", "adjective", "adverb",
    "auxiliary", "comparison", "conjunction", "determiner", "modal", "negation", "numeral",
    "particle", "preposition", "pronoun", "punctuation", "question",
]  # fmt: skip


class Agreement(NamedTuple):
    """What verbs, adjectives and participles agree with."""

    person: int
    """Index into a conjugation: je, il/elle, nous, vous, ils/elles."""
    feminine: bool = False
    plural: bool = False


THIRD = (
    (Agreement(1), Agreement(1, True)),
    (Agreement(4, False, True), Agreement(4, True, True)),
)
"""Third persons, by number and gender."""


class Pronoun(NamedTuple):
    """A personal, interrogative or relative pronoun, in all its cases."""

    english: str
    english_object: str
    french: str
    direct: str
    indirect: str
    stressed: str
    agreement: Agreement

    @property
    def is_personal(self) -> bool:
        return bool(self.direct)


I = Pronoun("I", "me", "je", "me", "me", "moi", Agreement(0))  # noqa: E741
YOU = Pronoun("you", "you", "vous", "vous", "vous", "vous", Agreement(3, False, True))
WE = Pronoun("we", "us", "nous", "nous", "nous", "nous", Agreement(2, False, True))
HE = Pronoun("he", "him", "il", "le", "lui", "lui", THIRD[0][0])
SHE = Pronoun("she", "her", "elle", "la", "lui", "elle", THIRD[0][1])
IT = (
    HE._replace(english="it", english_object="it"),
    SHE._replace(english="it", english_object="it"),
)
THEY = (
    Pronoun("they", "them", "ils", "les", "leur", "eux", THIRD[1][0]),
    Pronoun("they", "them", "elles", "les", "leur", "elles", THIRD[1][1]),
)
"""`IT` and `THEY` have a masculine and a feminine; the referent, in the same sentence, decides."""
WHO = Pronoun("who", "", "qui", "", "", "", THIRD[0][0])
THERE = Pronoun("there", "", "il", "", "", "", THIRD[0][0])
"""Subject of "there is", in French "il y a"."""


class NounPhrase(NamedTuple):
    """A noun and what belongs to it."""

    determiner: Determiner
    noun: Noun
    plural: bool = False
    adjectives: tuple[Adjective, ...] = ()
    """At most one of those before the noun in French, then at most one of those after."""
    possessor: Union["NounPhrase", None] = None
    """The neighbour in "the neighbour's dog"."""
    relative: Union["Clause", None] = None

    @property
    def agreement(self) -> Agreement:
        return THIRD[self.plural][self.noun.feminine]


class Coordination(NamedTuple):
    """Two subjects joined by "and"."""

    first: NounPhrase
    second: NounPhrase

    @property
    def agreement(self) -> Agreement:
        return THIRD[1][self.first.noun.feminine and self.second.noun.feminine]


Subject = Pronoun | NounPhrase | Coordination


class Phrase(NamedTuple):
    """Words that translate as a whole, such as a preposition, with what they govern."""

    english: str
    french: str
    complement: NounPhrase | Pronoun | None = None
    part_of_speech: PartOfSpeech = "adverb"
    """Of its words, but for nouns and the like in it (`phrase_words`)."""


class Attribute(NamedTuple):
    """What "be" says of its subject: an adjective, compared or not, or two."""

    adjective: Adjective
    than: NounPhrase | None = None
    equal: bool = False
    """Whether the comparison is "as ... as" and not "more ... than"."""
    link: Phrase | None = None
    other: Adjective | None = None
    """The adjective after `link`."""


class Tense(NamedTuple):
    """An English form and the French tense that always translates it."""

    english: str
    french: str


PRESENT = Tense("present", "present")
PROGRESSIVE = Tense("progressive", "present")
PAST = Tense("past", "compound")
STATE_PAST = Tense("past", "imperfect")
PAST_PROGRESSIVE = Tense("past progressive", "imperfect")
HABITUAL = Tense("habitual", "imperfect")
FUTURE = Tense("future", "future")
AFTER_WHEN = Tense("present", "future")
""""When he comes, ..." speaks of the future, and French says so: "Quand il viendra, ..."."""

NOT, NEVER, NO_LONGER = (
    Phrase(english, french, part_of_speech="negation")
    for english, french in (("not", "pas"), ("never", "jamais"), ("no longer", "plus"))
)


class Clause(NamedTuple):
    """A subject, a finite verb and what follows."""

    subject: Subject
    verb: Verb
    tense: Tense = PRESENT
    object: NounPhrase | Pronoun | None = None
    recipient: NounPhrase | Pronoun | None = None
    attribute: Attribute | None = None
    modal: Verb | None = None
    polarity: Phrase | None = None
    """`NOT`, `NEVER`, `NO_LONGER`, or nothing."""
    frequency: Phrase | None = None
    adverbials: tuple[Phrase, ...] = ()
    gap: Agreement | None = None
    """Agreement of a direct object further left, in a relative clause or a question."""


class Question(NamedTuple):
    """A clause as a question; the question words come first in both languages."""

    clause: Clause
    english: str = ""
    french: str = "est-ce que"
    asked: NounPhrase | None = None
    """The object, when it is asked for (how many apples); the clause has the gap."""


class Sentence(NamedTuple):
    """Clauses and the words between them, with the mark at the end."""

    items: tuple[Clause | Question | Phrase, ...]
    mark: str = "."


def relative_subject(antecedent: NounPhrase) -> Pronoun:
    """Returns the pronoun for `antecedent` as the subject of a relative clause: who, that."""
    is_person = antecedent.noun.group in ("person", "name")
    return Pronoun("who" if is_person else "that", "", "qui", "", "", "", antecedent.agreement)
