"""The truth about pairs of the built-in corpus, against alignments by hand and the lexicon."""

import pytest

from flax_transformer.data.builtin import generate
from flax_transformer.data.builtin import phrases as p
from flax_transformer.data.builtin import structure as s
from flax_transformer.data.builtin.analysis import analyse, analysed_pairs
from flax_transformer.data.builtin.lexicon import (
    ADJECTIVES,
    HOW_MANY,
    INDEFINITE,
    NAMED,
    NOUNS,
    PARTITIVE,
    THE,
    VERBS,
)
from flax_transformer.data.builtin.structure import Attribute, Clause, NounPhrase, Question
from flax_transformer.errors import UserError


def phrase(determiner, noun, *adjectives, plural=False, **others):
    described = tuple(ADJECTIVES[adjective] for adjective in adjectives)
    return NounPhrase(determiner, NOUNS[noun], plural, described, **others)


def clause(subject, verb, tense=s.PRESENT, **others):
    return Clause(subject, VERBS[verb], tense, **others)


MARIE, PAUL = phrase(NAMED, "Marie"), phrase(NAMED, "Paul")
AT_MARKET = p.TO._replace(complement=phrase(THE, "market"))
(TWO_DAYS_AGO,) = (time for time in p.TIMES[s.PAST] if time.english == "two days ago")
(NEXT_YEAR, *_) = (time for time in p.TIMES[s.FUTURE] if time.english == "next year")
PLACES = phrase(THE, "church", plural=True)
APPLES = phrase(HOW_MANY, "apple", plural=True)


@pytest.mark.parametrize(
    ("items", "links"),
    [
        (
            [clause(MARIE, "wear", object=phrase(INDEFINITE, "dress", "small", "white"))],
            "Marie~Marie wears~porte a~une small~petite white~blanche dress~robe .~.",
        ),
        (
            [clause(PAUL, "go", s.PAST, adverbials=(AT_MARKET,))],
            "Paul~Paul went~est went~allé to~au the~au market~marché .~.",
        ),
        (
            [clause(s.I, "see", modal=VERBS["can"], polarity=s.NOT, object=s.SHE)],
            "I~Je cannot~ne cannot~peux cannot~pas see~voir her~la .~.",
        ),
        (
            [clause(s.HE, "drink", s.FUTURE, polarity=s.NEVER, object=phrase(PARTITIVE, "wine"))],
            "He~Il will~boira never~ne never~jamais drink~boira any~de wine~vin .~.",
        ),
        (
            [clause(s.THERE, "have", polarity=s.NOT, object=phrase(INDEFINITE, "bird"))],
            "There~Il There~y is~a no~n' no~pas no~d' bird~oiseau .~.",
        ),
        (
            [clause(s.HE, "give", object=s.IT[0], recipient=s.SHE)],
            "He~Il gives~donne it~le to~lui her~lui .~.",
        ),
        (
            [clause(s.WE, "wake up", s.PAST, adverbials=(TWO_DAYS_AGO,))],
            "We~Nous woke~nous woke~sommes woke~réveillés up~nous up~réveillés two~deux "
            "days~jours ago~il ago~y ago~a .~.",
        ),
        (
            [NEXT_YEAR, p.COMMA, clause(s.SHE, "laugh", s.FUTURE)],
            "Next~prochaine year~année ,~, she~elle will~rira laugh~rira .~.",
        ),
        (
            [clause(phrase(THE, "dog", "black", possessor=phrase(THE, "king", "young")), "sleep")],
            "The~du young~jeune king~roi 's~Le 's~du black~noir dog~chien sleeps~dort .~.",
        ),
        (
            [clause(MARIE, "be", s.STATE_PAST, attribute=Attribute(ADJECTIVES["tall"], PAUL))],
            "Marie~Marie was~était taller~plus taller~grande than~que Paul~Paul .~.",
        ),
        (
            [clause(MARIE, "swim", s.HABITUAL, polarity=None), p.BECAUSE, clause(s.I, "cry")],
            "Marie~Marie used~nageait to~nageait swim~nageait because~parce because~que I~je "
            "cry~pleure .~.",
        ),
        (
            [Question(clause(PAUL, "look for", s.PROGRESSIVE, gap=s.THIRD[0][0]), *p.WHAT)],
            "What~Qu' is~est-ce is~que is~cherche Paul~Paul looking~cherche for~cherche ?~?",
        ),
        (
            [Question(clause(MARIE, "buy", s.PAST, gap=APPLES.agreement), asked=APPLES)],
            "How~Combien How~de many~Combien many~de apples~pommes did~est-ce did~que did~a "
            "Marie~Marie buy~achetées ?~?",
        ),
    ],
)
def test_alignments_by_hand(items, links):
    pair = analyse(s.Sentence(tuple(items), links[-1]))
    found = [
        f"{pair.source_words[i].text}~{pair.target_words[j].text}"
        for i, j in sorted(pair.alignment)
    ]
    assert found == links.split()


def test_the_same_words_at_two_places_translate_their_own_ones_alone():
    cat = phrase(THE, "cat")
    pair = analyse(s.Sentence((clause(cat, "see", s.PAST, object=cat),)))
    assert pair.target == "Le chat a vu le chat."
    assert pair.alignment == {(0, 0), (1, 1), (2, 2), (2, 3), (3, 4), (4, 5), (5, 6)}


def test_words_show_what_they_are():
    singing = phrase(THE, "girl", plural=True)
    verb = clause(s.relative_subject(singing), "invite", s.PAST, object=s.HE)
    subject = singing._replace(relative=verb)
    happy, beside = Attribute(ADJECTIVES["happy"]), p.AROUND[0]._replace(complement=PLACES)
    pair = analyse(s.Sentence((clause(subject, "be", attribute=happy, adverbials=(beside,)),)))
    assert pair.target == "Les filles qui l'ont invité sont heureuses près des églises."
    found = [(w.text, w.part_of_speech, w.gender, w.number) for w in pair.target_words]
    assert found == [
        ("Les", "determiner", "feminine", "plural"),
        ("filles", "noun", "feminine", "plural"),
        ("qui", "pronoun", None, None),
        ("l'", "pronoun", "masculine", "singular"),
        ("ont", "auxiliary", None, "plural"),
        ("invité", "verb", "masculine", "singular"),
        ("sont", "auxiliary", None, "plural"),
        ("heureuses", "adjective", "feminine", "plural"),
        ("près", "preposition", None, None),
        ("des", "preposition", "feminine", "plural"),
        ("églises", "noun", "feminine", "plural"),
        (".", "punctuation", None, None),
    ]
    content = {word.text for word in pair.source_words if word.is_content}
    assert content == {"girls", "invited", "happy", "churches"}
    assert {word.gender for word in pair.source_words} == {None}


@pytest.fixture(scope="module")
def pairs():
    return analysed_pairs("train", 3000)


def test_pairs_are_those_of_the_corpus(pairs):
    splits = generate(len(pairs))
    assert [(pair.source, pair.target) for pair in pairs] == splits["train"]
    for name in ("test", "test_compositional"):
        found = analysed_pairs(name, 40)
        assert [(pair.source, pair.target) for pair in found] == splits[name][:40]
    with pytest.raises(UserError, match=r"there is no split 'dev', only train, validation, test"):
        analysed_pairs("dev", 1)


def test_words_are_the_whole_text(pairs):
    for pair in pairs:
        for text, words in ((pair.source, pair.source_words), (pair.target, pair.target_words)):
            assert all(text[word.start : word.end] == word.text for word in words)
            assert "".join(word.text for word in words) == text.replace(" ", "")


def test_every_content_word_translates_one_of_its_kind(pairs):
    for pair in pairs:
        aligned = [
            (pair.source_words[i].part_of_speech, pair.target_words[j].part_of_speech, i, j)
            for i, j in pair.alignment
        ]
        for side, words in enumerate((pair.source_words, pair.target_words)):
            found = {link[2 + side] for link in aligned if link[0] == link[1]}
            missing = [w.text for i, w in enumerate(words) if w.is_content and i not in found]
            assert not missing, (pair.source, missing)


def test_nouns_and_adjectives_translate_as_in_the_lexicon(pairs):
    known = {
        (english, french): noun.feminine
        for noun in NOUNS.values()
        for english, french in zip(noun.english, noun.french, strict=True)
    }
    in_lexicon = {english for english, _ in known}
    adjectives = {
        (form, french)
        for adjective in ADJECTIVES.values()
        for form in (adjective.english, adjective.comparative)
        for french in (*adjective.french, adjective.liaison)
    }
    seen = 0
    for pair in pairs:
        for i, j in pair.alignment:
            word, translation = pair.source_words[i], pair.target_words[j]
            link = (word.text, translation.text)
            if i == 0 or j == 0 or word.part_of_speech != translation.part_of_speech:
                continue
            if word.part_of_speech in ("noun", "name") and word.text in in_lexicon:
                assert (translation.gender == "feminine") == known[link], link
                assert word.number == translation.number
                seen += 1
            if word.part_of_speech == "adjective" and word.text not in ("last", "next"):
                assert link in adjectives
                seen += 1
    assert seen > 5000
