"""Puts a sentence structure into English."""

import re

from flax_transformer.data.builtin.lexicon import VERBS, Verb
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

_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiou])")
_BE = (("am", "is", "are"), ("was", "was", "were"))
_AUXILIARIES = {"can": ("can", "could"), "must": ("must", "must")}
_PERSONS = (0, 1, 2, 2, 2)


def realise(sentence: Sentence) -> str:
    """Returns the English sentence, capitalised and with its final mark."""
    words = [_item(item) for item in sentence.items]
    text = " ".join(words).replace(" ,", ",") + sentence.mark
    text = text[0].upper() + text[1:]
    return _BEFORE_VOWEL.sub(r"\1n ", text)


def noun_phrase(phrase: NounPhrase, under_negation: bool = False) -> str:
    """Returns a noun phrase; as the object of a negated verb, "some" becomes "any"."""
    plural = phrase.plural
    if phrase.possessor is not None:
        owner = noun_phrase(phrase.possessor)
        words = [owner + ("'" if phrase.possessor.plural and owner[-1] == "s" else "'s")]
    else:
        determiner = phrase.determiner.english[plural]
        words = ["any" if under_negation and determiner == "some" else determiner]
    words += [adjective.english for adjective in phrase.adjectives]
    words.append(phrase.noun.english[plural])
    if phrase.relative is not None:
        words.append(_relative(phrase.relative))
    return " ".join(words).lstrip()


def statement(clause: Clause) -> str:
    """Returns a statement."""
    before, after = _verb_group(clause, False)
    return _join(_subject(clause.subject), before, after, _rest(clause))


def _item(item: Clause | Question | Phrase) -> str:
    if isinstance(item, Phrase):
        return _phrase(item)
    if isinstance(item, Clause):
        return statement(item)
    before, after = _verb_group(item.clause, True)
    asked = item.english if item.asked is None else noun_phrase(item.asked)
    return _join(asked, before, _subject(item.clause.subject), after, _rest(item.clause))


def _relative(relative: Clause) -> str:
    return statement(relative) if relative.gap is None else "that " + statement(relative)


def _subject(subject: Subject) -> str:
    if isinstance(subject, Pronoun):
        return subject.english
    if isinstance(subject, Coordination):
        return f"{noun_phrase(subject.first)} and {noun_phrase(subject.second)}"
    return noun_phrase(subject)


def _person(clause: Clause) -> int:
    """Returns 0 for I, 1 for the third person singular, 2 for the others."""
    source = clause.object if clause.subject is THERE else clause.subject
    assert source is not None
    return _PERSONS[source.agreement.person]


def _verb_group(clause: Clause, question: bool) -> tuple[str, str]:
    """Returns the auxiliary, and the verb with the adverbs before it; questions split the two."""
    verb = VERBS["be"] if clause.subject is THERE else clause.modal or clause.verb
    auxiliary, main = _finite(verb, clause, question)
    adverbs = [p.english for p in (clause.polarity, clause.frequency) if p is not None]
    if _says_no(clause):
        adverbs.remove("not")
    words = [*adverbs, main, verb.particle]
    if clause.modal is not None:
        words += [clause.verb.english[0], clause.verb.particle]
    after = _join(*words)
    if auxiliary == "can" and after.startswith("not "):
        return "cannot", after.removeprefix("not ")
    return auxiliary, after


def _finite(verb: Verb, clause: Clause, question: bool) -> tuple[str, str]:
    """Returns the auxiliary, or nothing, and the main verb."""
    form, person = clause.tense.english, _person(clause)
    base, third, past, ing = verb.english
    if form == "future":
        return "will", base
    if form in ("progressive", "past progressive"):
        return _BE[form != "progressive"][person], ing
    if form == "habitual":
        return "", f"used to {base}"
    is_past = form == "past"
    if base == "be":
        return _BE[is_past][person], ""
    if base in _AUXILIARIES:
        return _AUXILIARIES[base][is_past], ""
    if question or clause.polarity is NOT:
        return "did" if is_past else "does" if person == 1 else "do", base
    if is_past:
        return "", past
    return "", third if person == 1 else base


def _rest(clause: Clause) -> str:
    words = []
    recipient, direct = clause.recipient, clause.object
    if recipient is not None and isinstance(recipient, Pronoun) and not isinstance(direct, Pronoun):
        words.append(recipient.english_object)
        recipient = None
    if direct is not None:
        words.append(_object(direct, clause))
    if recipient is not None:
        words.append("to " + _complement(recipient))
    if clause.attribute is not None:
        words.append(_attribute(clause.attribute))
    words += [_phrase(adverbial) for adverbial in clause.adverbials]
    return " ".join(words)


def _object(direct: NounPhrase | Pronoun, clause: Clause) -> str:
    if isinstance(direct, Pronoun):
        return direct.english_object
    if clause.polarity is None or not direct.determiner.indefinite:
        return noun_phrase(direct)
    if _says_no(clause):
        return re.sub("^(a|some) ", "no ", noun_phrase(direct))
    return noun_phrase(direct, True)


def _says_no(clause: Clause) -> bool:
    """Returns whether the object carries the negation: "there is no cat"."""
    direct = clause.object
    return (
        clause.subject is THERE
        and clause.polarity is NOT
        and isinstance(direct, NounPhrase)
        and direct.determiner.indefinite
    )


def _attribute(attribute: Attribute) -> str:
    adjective = attribute.adjective
    if attribute.than is not None:
        than = noun_phrase(attribute.than)
        if attribute.equal:
            return f"as {adjective.english} as {than}"
        return f"{adjective.comparative} than {than}"
    if attribute.link is not None and attribute.other is not None:
        return f"{adjective.english} {attribute.link.english} {attribute.other.english}"
    return adjective.english


def _phrase(phrase: Phrase) -> str:
    if phrase.complement is None:
        return phrase.english
    return f"{phrase.english} {_complement(phrase.complement)}"


def _complement(complement: NounPhrase | Pronoun) -> str:
    if isinstance(complement, Pronoun):
        return complement.english_object
    return noun_phrase(complement)


def _join(*words: str) -> str:
    return " ".join(word for word in words if word)
