"""Puts a sentence structure into French.

Every function that makes words is told the place of the tree that it puts into words, and notes it
as their origin (`words`); `english` calls the same places by the same names.
"""

from flax_transformer.data.builtin.inflection import is_elided
from flax_transformer.data.builtin.lexicon import VERBS, Adjective, Verb
from flax_transformer.data.builtin.phrase_words import french_words
from flax_transformer.data.builtin.structure import (
    THERE,
    Agreement,
    Attribute,
    Clause,
    Coordination,
    NounPhrase,
    Phrase,
    Pronoun,
    Question,
    Sentence,
    Subject,
)
from flax_transformer.data.builtin.words import (
    BY_NUMBER,
    NEITHER,
    RealisedWord,
    Words,
    agreeing,
    concatenate,
    determiner_kind,
    finish,
    noun_kind,
    spell,
    verb_kind,
)

_CONTRACTED = {"à": {"le": "au", "les": "aux"}, "de": {"le": "du", "les": "des"}}
_ELIDED = frozenset(("je", "le", "la", "me", "se", "de", "ne", "que"))
_CHANGING = _CONTRACTED.keys() | _ELIDED | {"si"}
_REFLEXIVES = ("me", "se", "nous", "vous", "se")
_ASKED = "est-ce que"


def realise(sentence: Sentence) -> Words:
    """Returns the French sentence, capitalised and with its final mark.

    A question mark has a space before it.
    """
    words = concatenate(_item(item, str(place)) for place, item in enumerate(sentence.items))
    mark = RealisedWord(sentence.mark, "punctuation", ("mark",), glued=sentence.mark != "?")
    return finish(sound(words), mark)


def sound(words: Words) -> Words:
    """Returns the words after elision (l'arbre, qu'il, s'il) and contraction (du, des, au, aux).

    Both concern words side by side. Given are the full forms: "de le arbre" becomes "de l'arbre",
    and "de le chat" becomes "du chat", a word with the origins of both.
    No pronoun ever follows a preposition here, so every "le" after "de" or "à" is an article.
    """
    found: Words = []  # from the last to the first: only a "le" that is not elided is contracted
    for word in reversed(words):
        following = found[-1] if found else None
        if following is None or word.text not in _CHANGING:
            found.append(word)
        elif contracted := _CONTRACTED.get(word.text, {}).get(following.text):
            origins = word.origins + following.origins
            found[-1] = word._replace(text=contracted, origins=origins, features=following.features)
        elif _elides(word.text, following.text):
            found[-1] = following._replace(glued=True)
            found.append(word._replace(text=word.text[:-1] + "'"))
        else:
            found.append(word)
    return found[::-1]


def _elides(word: str, following: str) -> bool:
    if word in _ELIDED:
        return is_elided(following)
    return word == "si" and following in ("il", "ils")


def noun_phrase(phrase: NounPhrase, place: str, under_negation: bool = False) -> Words:
    """Returns a noun phrase before elision.

    As the object of a negated verb, un/des/du become "de".
    """
    noun, agreement = phrase.noun, phrase.agreement
    before: Words = []
    after: Words = []
    for number, adjective in enumerate(phrase.adjectives):
        form = _form(adjective.french, agreement)
        if adjective.before_noun and noun.elided and not (agreement.feminine or agreement.plural):
            form = adjective.liaison
        side = before if adjective.before_noun else after
        origin = f"{place}/adjective {number}"
        side += spell(form, "adjective", origin, features=agreeing(agreement))
    named = spell(
        noun.french[phrase.plural], noun_kind(noun), f"{place}/noun", features=agreeing(agreement)
    )
    words = [*before, *named, *after]
    form = _determiner(phrase, words[0].text, bool(before), under_negation)
    agrees = form != "de" and len({*phrase.determiner.french}) > 1
    words = [
        *spell(
            form,
            determiner_kind(phrase.determiner),
            f"{place}/determiner",
            features=agreeing(agreement) if agrees else NEITHER,
        ),
        *words,
    ]
    if phrase.possessor is not None:
        words += spell("de", "preposition", f"{place}/possession")
        words += noun_phrase(phrase.possessor, f"{place}/possessor")
    if phrase.relative is not None:
        words += _relative(phrase.relative, f"{place}/relative")
    return words


def statement(clause: Clause, place: str) -> Words:
    """Returns a statement, before elision."""
    words = _subject(clause.subject, place)
    if clause.polarity is not None:
        words += spell("ne", "negation", f"{place}/polarity")
    words += _verb_group(clause, place)
    direct, recipient = clause.object, clause.recipient
    if isinstance(direct, NounPhrase):
        under_negation = clause.polarity is not None and direct.determiner.indefinite
        words += noun_phrase(direct, f"{place}/object", under_negation)
    if isinstance(recipient, NounPhrase):
        words += spell("à", "preposition", f"{place}/recipient/to")
        words += noun_phrase(recipient, f"{place}/recipient")
    if clause.attribute is not None:
        words += _attribute(clause.attribute, clause.subject.agreement, f"{place}/attribute")
    for number, adverbial in enumerate(clause.adverbials):
        words += _phrase(adverbial, f"{place}/adverbial {number}")
    return words


def _item(item: Clause | Question | Phrase, place: str) -> Words:
    if isinstance(item, Phrase):
        return _phrase(item, place)
    if isinstance(item, Clause):
        return statement(item, place)
    asked = spell(item.french.removesuffix(_ASKED), "question", f"{place}/asked")
    if item.asked is not None:
        asked = noun_phrase(item.asked, f"{place}/asked")
    return [*asked, *spell(_ASKED, "question", f"{place}/question"), *statement(item.clause, place)]


def _relative(relative: Clause, place: str) -> Words:
    that = [] if relative.gap is None else spell("que", "pronoun", f"{place}/that")
    return [*that, *statement(relative, place)]


def _subject(subject: Subject, place: str) -> Words:
    place = f"{place}/subject"
    if isinstance(subject, Pronoun):
        return _pronoun(subject.french, subject, place)
    if isinstance(subject, Coordination):
        first = noun_phrase(subject.first, f"{place}/first")
        second = noun_phrase(subject.second, f"{place}/second")
        return [*first, *spell("et", "conjunction", f"{place}/and"), *second]
    return noun_phrase(subject, place)


def _pronoun(form: str, pronoun: Pronoun, *origins: str) -> Words:
    if not pronoun.is_personal:
        return spell(form, "pronoun", *origins)
    if pronoun.agreement.person in (1, 4):
        return spell(form, "pronoun", *origins, features=agreeing(pronoun.agreement))
    return spell(form, "pronoun", *origins, features=BY_NUMBER[pronoun.agreement.plural])


def _form(forms: tuple[str, ...], agreement: Agreement) -> str:
    return forms[agreement.feminine + 2 * agreement.plural]


def _determiner(phrase: NounPhrase, following: str, adjective: bool, under_negation: bool) -> str:
    determiner, plural = phrase.determiner, phrase.plural
    if under_negation or (plural and adjective and determiner.french[2] == "des"):
        return "de"
    masculine, feminine, several = determiner.french
    if plural:
        return several
    # Before a vowel: cet arbre; and mon, ton, son for the feminine, mon amie.
    elided = is_elided(following)
    if not phrase.noun.feminine:
        return "cet" if elided and masculine == "ce" else masculine
    return masculine if elided and feminine in ("ma", "sa") else feminine


def _verb_group(clause: Clause, place: str) -> Words:
    """Returns the finite verb, the participle or infinitive, and what is before or between."""
    clitics, between = _clitics(clause, place), _between(clause, place)
    lexical, tense = f"{place}/verb", f"{place}/tense"
    verb, (person, _, plural) = clause.verb, clause.subject.agreement
    kind = verb_kind(verb, clause)
    if clause.modal is not None:
        form = _finite(clause.modal, clause)
        modal = spell(form, "modal", f"{place}/modal", tense, features=BY_NUMBER[plural])
        return [*modal, *between, *clitics, *spell(verb.french.infinitive, kind, lexical)]
    if clause.tense.french != "compound":
        form = _finite(verb, clause)
        return [*clitics, *spell(form, kind, lexical, tense, features=BY_NUMBER[plural]), *between]
    with_etre = verb.with_etre or verb.kind == "reflexive"
    auxiliary = VERBS["be" if with_etre else "have"].french.present[person]
    agreement = clause.subject.agreement if with_etre else _preceding_object(clause)
    participle = _form(verb.french.participle, agreement or Agreement(1))
    return [
        *clitics,
        *spell(auxiliary, "auxiliary", tense, features=BY_NUMBER[plural]),
        *between,
        *spell(participle, kind, lexical, features=agreeing(agreement) if agreement else NEITHER),
    ]


def _finite(verb: Verb, clause: Clause) -> str:
    return getattr(verb.french, clause.tense.french)[clause.subject.agreement.person]


def _between(clause: Clause, place: str) -> Words:
    """Returns what stands after the finite verb: pas, jamais, plus, souvent."""
    words: Words = []
    if clause.polarity is not None:
        words += spell(clause.polarity.french, "negation", f"{place}/polarity")
    if clause.frequency is not None:
        words += french_words(clause.frequency, f"{place}/frequency")
    return words


def _preceding_object(clause: Clause) -> Agreement | None:
    """Returns what a participle with avoir agrees with: a direct object to its left or nothing."""
    if clause.gap is not None:
        return clause.gap
    return clause.object.agreement if isinstance(clause.object, Pronoun) else None


def _clitics(clause: Clause, place: str) -> Words:
    """Returns the pronouns before the verb: me/nous/vous/se, then le/la/les, then lui/leur."""
    if clause.verb.kind == "reflexive":
        reflexive = _REFLEXIVES[clause.subject.agreement.person]
        return spell(reflexive, "pronoun", f"{place}/verb")
    if clause.subject is THERE:
        return spell("y", "pronoun", f"{place}/subject")
    clitics: Words = []
    if isinstance(clause.object, Pronoun):
        clitics = _pronoun(clause.object.direct, clause.object, f"{place}/object")
    if isinstance(clause.recipient, Pronoun):
        indirect = clause.recipient.indirect
        words = _pronoun(indirect, clause.recipient, f"{place}/recipient", f"{place}/recipient/to")
        return [*clitics, *words] if indirect in ("lui", "leur") else [*words, *clitics]
    return clitics


def _attribute(attribute: Attribute, agreement: Agreement, place: str) -> Words:
    def form(adjective: Adjective, origin: str) -> Words:
        return spell(
            _form(adjective.french, agreement), "adjective", origin, features=agreeing(agreement)
        )

    words = form(attribute.adjective, f"{place}/adjective")
    if attribute.than is not None:
        degree = "aussi" if attribute.equal else "plus"
        return [
            *spell(degree, "comparison", f"{place}/degree"),
            *words,
            *spell("que", "conjunction", f"{place}/than"),
            *noun_phrase(attribute.than, f"{place}/rival"),
        ]
    if attribute.link is not None and attribute.other is not None:
        words += french_words(attribute.link, f"{place}/link")
        words += form(attribute.other, f"{place}/other")
    return words


def _phrase(phrase: Phrase, place: str) -> Words:
    words = french_words(phrase, place)
    own_place = f"{place}/complement"
    if isinstance(phrase.complement, Pronoun):
        words += _pronoun(phrase.complement.stressed, phrase.complement, own_place)
    elif phrase.complement is not None:
        words += noun_phrase(phrase.complement, own_place)
    return words
