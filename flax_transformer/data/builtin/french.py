"""Puts a sentence structure into French."""

import re

from flax_transformer.data.builtin.inflection import ASPIRATED, ELIDING, is_elided
from flax_transformer.data.builtin.lexicon import VERBS
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

_VOWEL = f"(?=[{ELIDING}])(?!(?:{'|'.join(ASPIRATED)})\\b)"
_ELISION = re.compile(rf"\b([jlmsdnJLMSDN]|[qQ]u)[ea] {_VOWEL}")
_BEFORE_IL = re.compile(r"\b([Ss])i (?=ils?\b)")
_CONTRACTION = re.compile(r"\b([àÀ]|[Dd]e) (les?) ")
_CONTRACTED = {"à le": "au", "à les": "aux", "de le": "du", "de les": "des"}
_REFLEXIVES = ("me", "se", "nous", "vous", "se")


def realise(sentence: Sentence) -> str:
    """Returns the French sentence, capitalised and with its final mark.

    A question mark has a space before it.
    """
    text = " ".join([_item(item) for item in sentence.items]).replace(" ,", ",")
    text = sound(text) + (" ?" if sentence.mark == "?" else sentence.mark)
    return text[0].upper() + text[1:]


def sound(text: str) -> str:
    """Applies elision (l'arbre, qu'il, s'il) and contraction (du, des, au, aux) to `text`.

    Both concern words side by side. The text has the full forms: "de le arbre" becomes
    "de l'arbre", and "de le chat" becomes "du chat".
    No pronoun ever follows a preposition here, so every "le" after "de" or "à" is an article.
    """
    text = _ELISION.sub(r"\1'", text)
    text = _BEFORE_IL.sub(r"\1'", text)
    return _CONTRACTION.sub(lambda match: _CONTRACTED[match[0].rstrip().lower()] + " ", text)


def noun_phrase(phrase: NounPhrase, under_negation: bool = False) -> str:
    """Returns a noun phrase before elision.

    As the object of a negated verb, un/des/du become "de".
    """
    noun, agreement = phrase.noun, phrase.agreement
    before, after = [], []
    for adjective in phrase.adjectives:
        form = adjective.french[agreement.feminine + 2 * agreement.plural]
        if not adjective.before_noun:
            after.append(form)
        elif noun.elided and not (agreement.feminine or agreement.plural):
            before.append(adjective.liaison)
        else:
            before.append(form)
    words = [*before, noun.french[phrase.plural], *after]
    if determiner := _determiner(phrase, words[0], bool(before), under_negation):
        words.insert(0, determiner)
    if phrase.possessor is not None:
        words += ["de", noun_phrase(phrase.possessor)]
    if phrase.relative is not None:
        words.append(_relative(phrase.relative))
    return " ".join(words)


def statement(clause: Clause) -> str:
    """Returns a statement, before elision."""
    words = [_subject(clause.subject)]
    if clause.polarity is not None:
        words.append("ne")
    words += _verb_group(clause)
    direct, recipient = clause.object, clause.recipient
    if isinstance(direct, NounPhrase):
        under_negation = clause.polarity is not None and direct.determiner.indefinite
        words.append(noun_phrase(direct, under_negation))
    if isinstance(recipient, NounPhrase):
        words += ["à", noun_phrase(recipient)]
    if clause.attribute is not None:
        words.append(_attribute(clause.attribute, clause.subject.agreement))
    words += [_phrase(adverbial) for adverbial in clause.adverbials]
    return " ".join(words)


def _item(item: Clause | Question | Phrase) -> str:
    if isinstance(item, Phrase):
        return _phrase(item)
    if isinstance(item, Clause):
        return statement(item)
    asked = item.french if item.asked is None else f"{noun_phrase(item.asked)} {item.french}"
    return f"{asked} {statement(item.clause)}"


def _relative(relative: Clause) -> str:
    return statement(relative) if relative.gap is None else "que " + statement(relative)


def _subject(subject: Subject) -> str:
    if isinstance(subject, Pronoun):
        return subject.french
    if isinstance(subject, Coordination):
        return f"{noun_phrase(subject.first)} et {noun_phrase(subject.second)}"
    return noun_phrase(subject)


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


def _verb_group(clause: Clause) -> list[str]:
    """Returns the finite verb, the participle or infinitive, and what is before or between."""
    clitics = _clitics(clause)
    finite = clause.modal or clause.verb
    forms, person = finite.french, clause.subject.agreement.person
    between = [p.french for p in (clause.polarity, clause.frequency) if p is not None]
    if clause.modal is not None:
        verb = getattr(forms, clause.tense.french)[person]
        return [verb, *between, *clitics, clause.verb.french.infinitive]
    if clause.tense.french != "compound":
        return [*clitics, getattr(forms, clause.tense.french)[person], *between]
    with_etre = finite.with_etre or finite.kind == "reflexive"
    auxiliary = VERBS["be" if with_etre else "have"].french.present[person]
    agreement = clause.subject.agreement if with_etre else _preceding_object(clause)
    participle = forms.participle[agreement.feminine + 2 * agreement.plural]
    return [*clitics, auxiliary, *between, participle]


def _preceding_object(clause: Clause) -> Agreement:
    """Returns what a participle with avoir agrees with: a direct object to its left or nothing."""
    if clause.gap is not None:
        return clause.gap
    if isinstance(clause.object, Pronoun):
        return clause.object.agreement
    return Agreement(1)


def _clitics(clause: Clause) -> list[str]:
    """Returns the pronouns before the verb: me/nous/vous/se, then le/la/les, then lui/leur."""
    if clause.verb.kind == "reflexive":
        return [_REFLEXIVES[clause.subject.agreement.person]]
    if clause.subject is THERE:
        return ["y"]
    clitics = []
    if isinstance(clause.object, Pronoun):
        clitics.append(clause.object.direct)
    if isinstance(clause.recipient, Pronoun):
        indirect = clause.recipient.indirect
        clitics.insert(len(clitics) if indirect in ("lui", "leur") else 0, indirect)
    return clitics


def _attribute(attribute: Attribute, agreement: Agreement) -> str:
    index = agreement.feminine + 2 * agreement.plural
    word = attribute.adjective.french[index]
    if attribute.than is not None:
        return f"{'aussi' if attribute.equal else 'plus'} {word} que {noun_phrase(attribute.than)}"
    if attribute.link is not None and attribute.other is not None:
        return f"{word} {attribute.link.french} {attribute.other.french[index]}"
    return word


def _phrase(phrase: Phrase) -> str:
    if phrase.complement is None:
        return phrase.french
    if isinstance(phrase.complement, Pronoun):
        return f"{phrase.french} {phrase.complement.stressed}"
    return f"{phrase.french} {noun_phrase(phrase.complement)}"
