"""Puts a sentence structure into English.

Every function that makes words is told the place of the tree that it puts into words, and notes it
as their origin (`words`); `french` calls the same places by the same names.
"""

from flax_transformer.data.builtin.lexicon import VERBS, Verb
from flax_transformer.data.builtin.phrase_words import english_words
from flax_transformer.data.builtin.structure import (
    NOT,
    THERE,
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
    concatenate,
    determiner_kind,
    finish,
    noun_kind,
    spell,
    verb_kind,
)

_BE = (("am", "is", "are"), ("was", "was", "were"))
_AUXILIARIES = {"can": ("can", "could"), "must": ("must", "must")}
_PERSONS = (0, 1, 2, 2, 2)


def realise(sentence: Sentence) -> Words:
    """Returns the English sentence, capitalised and with its final mark."""
    words = concatenate(_item(item, str(place)) for place, item in enumerate(sentence.items))
    for place, following in enumerate(words[1:]):
        if words[place].text == "a" and following.text[0] in "aeiou":
            words[place] = words[place]._replace(text="an")
    return finish(words, RealisedWord(sentence.mark, "punctuation", ("mark",), glued=True))


def noun_phrase(phrase: NounPhrase, place: str, under_negation: bool = False) -> Words:
    """Returns a noun phrase; as the object of a negated verb, "some" becomes "any"."""
    plural = phrase.plural
    if phrase.possessor is not None:
        words = noun_phrase(phrase.possessor, f"{place}/possessor")
        ending = "'" if phrase.possessor.plural and words[-1].text[-1] == "s" else "'s"
        # It stands for the determiner of what is possessed, too: "the dog of Anne".
        origins = (f"{place}/possession", f"{place}/determiner")
        words.append(RealisedWord(ending, "particle", origins, glued=True))
    else:
        determiner = phrase.determiner.english[plural]
        words = spell(
            "any" if under_negation and determiner == "some" else determiner,
            determiner_kind(phrase.determiner),
            f"{place}/determiner",
        )
    for number, adjective in enumerate(phrase.adjectives):
        words += spell(adjective.english, "adjective", f"{place}/adjective {number}")
    words += spell(
        phrase.noun.english[plural],
        noun_kind(phrase.noun),
        f"{place}/noun",
        features=BY_NUMBER[plural],
    )
    if phrase.relative is not None:
        words += _relative(phrase.relative, f"{place}/relative")
    return words


def statement(clause: Clause, place: str) -> Words:
    """Returns a statement."""
    before, after = _verb_group(clause, place, False)
    return [*_subject(clause.subject, place), *before, *after, *_rest(clause, place)]


def _item(item: Clause | Question | Phrase, place: str) -> Words:
    if isinstance(item, Phrase):
        return _phrase(item, place)
    if isinstance(item, Clause):
        return statement(item, place)
    clause = item.clause
    if item.asked is None:
        asked = spell(item.english, "question", f"{place}/asked")
    else:
        asked = noun_phrase(item.asked, f"{place}/asked")
    before, after = _verb_group(clause, place, True)
    return [*asked, *before, *_subject(clause.subject, place), *after, *_rest(clause, place)]


def _relative(relative: Clause, place: str) -> Words:
    that = [] if relative.gap is None else spell("that", "pronoun", f"{place}/that")
    return [*that, *statement(relative, place)]


def _subject(subject: Subject, place: str) -> Words:
    place = f"{place}/subject"
    if isinstance(subject, Pronoun):
        features = BY_NUMBER[subject.agreement.plural] if subject.is_personal else NEITHER
        return spell(subject.english, "pronoun", place, features=features)
    if isinstance(subject, Coordination):
        first = noun_phrase(subject.first, f"{place}/first")
        second = noun_phrase(subject.second, f"{place}/second")
        return [*first, *spell("and", "conjunction", f"{place}/and"), *second]
    return noun_phrase(subject, place)


def _person(clause: Clause) -> int:
    """Returns 0 for I, 1 for the third person singular, 2 for the others."""
    source = clause.object if clause.subject is THERE else clause.subject
    assert source is not None
    return _PERSONS[source.agreement.person]


def _verb_group(clause: Clause, place: str, question: bool) -> tuple[Words, Words]:
    """Returns the auxiliary, and the verb with the adverbs before it; questions split the two."""
    verb = VERBS["be"] if clause.subject is THERE else clause.modal or clause.verb
    kind, lexical = verb_kind(verb, clause), f"{place}/modal" if clause.modal else f"{place}/verb"
    tense = (f"{place}/tense", f"{place}/question") if question else (f"{place}/tense",)
    auxiliary, used_to, main = _finite(verb, clause, question)
    if main:
        before = spell(auxiliary, "auxiliary", *tense)
        after = spell(used_to, "auxiliary", *tense)
        after += spell(main, kind, lexical, *(() if before or after else tense))
    else:
        before, after = spell(auxiliary, kind, lexical, *tense), []
    after = [*_adverbs(clause, place), *after, *spell(verb.particle, "particle", lexical)]
    if clause.modal is not None:
        after += spell(clause.verb.english[0], verb_kind(clause.verb, clause), f"{place}/verb")
        after += spell(clause.verb.particle, "particle", f"{place}/verb")
    if auxiliary == "can" and clause.polarity is NOT:
        origins = before[0].origins + after[0].origins
        return [before[0]._replace(text="cannot", origins=origins)], after[1:]
    return before, after


def _adverbs(clause: Clause, place: str) -> Words:
    words: Words = []
    if clause.polarity is not None and not _says_no(clause):
        words += spell(clause.polarity.english, "negation", f"{place}/polarity")
    if clause.frequency is not None:
        words += english_words(clause.frequency, f"{place}/frequency")
    return words


def _finite(verb: Verb, clause: Clause, question: bool) -> tuple[str, str, str]:
    """Returns the auxiliary, "used to", and the main verb, each of which may be nothing."""
    form, person = clause.tense.english, _person(clause)
    base, third, past, ing = verb.english
    if form == "future":
        return "will", "", base
    if form in ("progressive", "past progressive"):
        return _BE[form != "progressive"][person], "", ing
    if form == "habitual":
        return "", "used to", base
    is_past = form == "past"
    if base == "be":
        return _BE[is_past][person], "", ""
    if base in _AUXILIARIES:
        return _AUXILIARIES[base][is_past], "", ""
    if question or clause.polarity is NOT:
        return "did" if is_past else "does" if person == 1 else "do", "", base
    if is_past:
        return "", "", past
    return "", "", third if person == 1 else base


def _rest(clause: Clause, place: str) -> Words:
    words: Words = []
    recipient, direct = clause.recipient, clause.object
    if recipient is not None and isinstance(recipient, Pronoun) and not isinstance(direct, Pronoun):
        words += _complement(recipient, f"{place}/recipient")
        recipient = None
    if direct is not None:
        words += _object(direct, clause, place)
    if recipient is not None:
        words += spell("to", "preposition", f"{place}/recipient/to")
        words += _complement(recipient, f"{place}/recipient")
    if clause.attribute is not None:
        words += _attribute(clause.attribute, f"{place}/attribute")
    for number, adverbial in enumerate(clause.adverbials):
        words += _phrase(adverbial, f"{place}/adverbial {number}")
    return words


def _object(direct: NounPhrase | Pronoun, clause: Clause, place: str) -> Words:
    own_place = f"{place}/object"
    if isinstance(direct, Pronoun):
        return _complement(direct, own_place)
    if clause.polarity is None or not direct.determiner.indefinite:
        return noun_phrase(direct, own_place)
    if _says_no(clause):
        determiner, *words = noun_phrase(direct, own_place)
        origins = (*determiner.origins, f"{place}/polarity")
        return [determiner._replace(text="no", origins=origins), *words]
    return noun_phrase(direct, own_place, True)


def _says_no(clause: Clause) -> bool:
    """Returns whether the object carries the negation: "there is no cat"."""
    direct = clause.object
    return (
        clause.subject is THERE
        and clause.polarity is NOT
        and isinstance(direct, NounPhrase)
        and direct.determiner.indefinite
    )


def _attribute(attribute: Attribute, place: str) -> Words:
    adjective = attribute.adjective
    words = spell(adjective.english, "adjective", f"{place}/adjective")
    if attribute.than is not None:
        than = noun_phrase(attribute.than, f"{place}/rival")
        degree = f"{place}/degree"
        if attribute.equal:
            first = spell("as", "comparison", degree)
            return [*first, *words, *spell("as", "conjunction", f"{place}/than"), *than]
        if adjective.comparative.startswith("more "):
            words = [*spell("more", "comparison", degree), *words]
        else:
            words = spell(adjective.comparative, "adjective", f"{place}/adjective", degree)
        return [*words, *spell("than", "conjunction", f"{place}/than"), *than]
    if attribute.link is not None and attribute.other is not None:
        words += english_words(attribute.link, f"{place}/link")
        words += spell(attribute.other.english, "adjective", f"{place}/other")
    return words


def _phrase(phrase: Phrase, place: str) -> Words:
    words = english_words(phrase, place)
    if phrase.complement is not None:
        words += _complement(phrase.complement, f"{place}/complement")
    return words


def _complement(complement: NounPhrase | Pronoun, place: str) -> Words:
    if isinstance(complement, Pronoun):
        features = BY_NUMBER[complement.agreement.plural]
        return spell(complement.english_object, "pronoun", place, features=features)
    return noun_phrase(complement, place)
