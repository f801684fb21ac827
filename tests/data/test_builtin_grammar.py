"""The grammar of the built-in corpus: structures put into words, against translations by hand."""

import pytest

from flax_transformer.data.builtin import phrases as p
from flax_transformer.data.builtin import realise
from flax_transformer.data.builtin import structure as s
from flax_transformer.data.builtin.english import noun_phrase as english_noun_phrase
from flax_transformer.data.builtin.french import noun_phrase as french_noun_phrase
from flax_transformer.data.builtin.french import sound
from flax_transformer.data.builtin.inflection import conjugate
from flax_transformer.data.builtin.lexicon import (
    ADJECTIVES,
    HOW_MANY,
    INDEFINITE,
    MANY,
    NAMED,
    NOUNS,
    NUMERALS,
    PARTITIVE,
    POSSESSIVES,
    THE,
    THIS,
    VERBS,
)
from flax_transformer.data.builtin.structure import Attribute, Clause, NounPhrase, Question
from flax_transformer.data.builtin.words import join, spell

MY, _, _, HER, *_ = POSSESSIVES


def phrase(determiner, noun, *adjectives, plural=False, **others):
    described = tuple(ADJECTIVES[adjective] for adjective in adjectives)
    return NounPhrase(determiner, NOUNS[noun], plural, described, **others)


def name(noun):
    return phrase(NAMED, noun)


def clause(subject, verb, tense=s.PRESENT, **others):
    return Clause(subject, VERBS[verb], tense, **others)


MARIE, PAUL, ANNE = name("Marie"), name("Paul"), name("Anne")
APPLE, APPLES = phrase(THE, "apple"), phrase(THE, "apple", plural=True)


@pytest.mark.parametrize(
    ("structure", "english", "french"),
    [
        (phrase(THE, "apple", "red"), "the red apple", "la pomme rouge"),
        (phrase(THE, "school", plural=True), "the schools", "les écoles"),
        (phrase(INDEFINITE, "owl"), "an owl", "un hibou"),
        (phrase(THE, "owl"), "the owl", "le hibou"),
        (phrase(THE, "man"), "the man", "l'homme"),
        (phrase(THIS, "bird"), "this bird", "cet oiseau"),
        (phrase(MY, "actress"), "my actress", "mon actrice"),
        (phrase(MY, "actress", "young"), "my young actress", "ma jeune actrice"),
        (phrase(HER, "brother"), "her brother", "son frère"),
        (phrase(THE, "bird", "beautiful"), "the beautiful bird", "le bel oiseau"),
        (phrase(THE, "man", "old"), "the old man", "le vieil homme"),
        (phrase(THE, "hotel", "new"), "the new hotel", "le nouvel hôtel"),
        (phrase(THE, "owl", "old"), "the old owl", "le vieux hibou"),
        (
            phrase(INDEFINITE, "dress", "small", "white"),
            "a small white dress",
            "une petite robe blanche",
        ),
        (
            phrase(INDEFINITE, "house", "old", plural=True),
            "some old houses",
            "de vieilles maisons",
        ),
        (phrase(PARTITIVE, "water"), "some water", "de l'eau"),
        (phrase(PARTITIVE, "bread", "fresh"), "some fresh bread", "du pain frais"),
        (phrase(MANY, "student", plural=True), "many students", "beaucoup d'étudiants"),
        (phrase(NUMERALS[0], "cake", "red", plural=True), "two red cakes", "deux gâteaux rouges"),
        (phrase(THE, "dog", possessor=ANNE), "Anne's dog", "le chien d'Anne"),
        (
            phrase(THE, "car", possessor=phrase(THE, "neighbour", plural=True)),
            "the neighbours' car",
            "la voiture des voisins",
        ),
        (
            phrase(THE, "dog", possessor=phrase(THE, "king", "young")),
            "the young king's dog",
            "le chien du jeune roi",
        ),
        (
            phrase(THE, "key", possessor=phrase(THE, "child", plural=True)),
            "the children's key",
            "la clé des enfants",
        ),
    ],
)
def test_noun_phrases(structure, english, french):
    statement = realise(s.Sentence((clause(structure, "sleep"),)))
    verb = ("sleep", "dorment") if structure.plural else ("sleeps", "dort")
    assert statement == (
        f"{english[0].upper()}{english[1:]} {verb[0]}.",
        f"{french[0].upper()}{french[1:]} {verb[1]}.",
    )


TO_HER = {"object": phrase(THE, "book"), "recipient": s.SHE}
IT_TO_HER = {"object": s.IT[0], "recipient": s.SHE}
AT_MARKET = p.AT._replace(complement=phrase(THE, "market"))
EATEN = phrase(
    THE, "apple", plural=True, relative=clause(s.SHE, "eat", s.PAST, gap=APPLES.agreement)
)
SINGER = phrase(THE, "girl", plural=True)
SINGING = SINGER._replace(relative=clause(s.relative_subject(SINGER), "sing"))
COUNTED = phrase(HOW_MANY, "apple", plural=True)


@pytest.mark.parametrize(
    ("items", "english", "french"),
    [
        (
            [clause(s.I, "eat", object=phrase(INDEFINITE, "apple"))],
            "I eat an apple.",
            "Je mange une pomme.",
        ),
        ([clause(s.I, "love", object=s.SHE)], "I love her.", "Je l'aime."),
        (
            [clause(s.SHE, "buy", polarity=s.NOT, object=phrase(INDEFINITE, "egg", plural=True))],
            "She does not buy any eggs.",
            "Elle n'achète pas d'œufs.",
        ),
        (
            [clause(PAUL, "drink", s.PAST, polarity=s.NEVER, object=phrase(PARTITIVE, "wine"))],
            "Paul never drank any wine.",
            "Paul n'a jamais bu de vin.",
        ),
        (
            [clause(MARIE, "go", s.PAST, adverbials=(AT_MARKET._replace(english="to"),))],
            "Marie went to the market.",
            "Marie est allée au marché.",
        ),
        (
            [clause(s.Coordination(MARIE, ANNE), "leave", s.PAST)],
            "Marie and Anne left.",
            "Marie et Anne sont parties.",
        ),
        (
            [clause(s.Coordination(MARIE, PAUL), "leave", s.PAST)],
            "Marie and Paul left.",
            "Marie et Paul sont partis.",
        ),
        ([clause(s.HE, "give", **TO_HER)], "He gives her the book.", "Il lui donne le livre."),
        (
            [clause(s.HE, "give", s.FUTURE, polarity=s.NOT, **IT_TO_HER)],
            "He will not give it to her.",
            "Il ne le lui donnera pas.",
        ),
        (
            [clause(PAUL, "see", s.PAST, polarity=s.NOT, object=s.SHE)],
            "Paul did not see her.",
            "Paul ne l'a pas vue.",
        ),
        (
            [clause(s.HE, "invite", s.PAST, object=s.THEY[1])],
            "He invited them.",
            "Il les a invitées.",
        ),
        (
            [clause(s.WE, "see", modal=VERBS["want to"], polarity=s.NOT, object=s.HE)],
            "We do not want to see him.",
            "Nous ne voulons pas le voir.",
        ),
        (
            [clause(s.I, "get up", s.STATE_PAST, modal=VERBS["can"], polarity=s.NOT)],
            "I could not get up.",
            "Je ne pouvais pas me lever.",
        ),
        (
            [clause(s.SHE, "wake up", s.PAST, polarity=s.NOT)],
            "She did not wake up.",
            "Elle ne s'est pas réveillée.",
        ),
        ([clause(s.WE, "swim", s.HABITUAL)], "We used to swim.", "Nous nagions."),
        (
            [clause(MARIE, "eat", s.PAST, frequency=p.FREQUENCIES[0], object=APPLE)],
            "Marie often ate the apple.",
            "Marie a souvent mangé la pomme.",
        ),
        (
            [clause(EATEN, "be", s.STATE_PAST, attribute=Attribute(ADJECTIVES["green"]))],
            "The apples that she ate were green.",
            "Les pommes qu'elle a mangées étaient vertes.",
        ),
        (
            [clause(SINGING, "be", attribute=Attribute(ADJECTIVES["happy"]))],
            "The girls who sing are happy.",
            "Les filles qui chantent sont heureuses.",
        ),
        (
            [clause(MARIE, "be", attribute=Attribute(ADJECTIVES["tall"], ANNE))],
            "Marie is taller than Anne.",
            "Marie est plus grande qu'Anne.",
        ),
        (
            [p.WHEN, clause(s.HE, "come", s.AFTER_WHEN), p.COMMA, clause(s.WE, "leave", s.FUTURE)],
            "When he comes, we will leave.",
            "Quand il viendra, nous partirons.",
        ),
        (
            [p.IF, clause(s.HE, "fall"), p.COMMA, clause(s.SHE, "laugh", s.FUTURE)],
            "If he falls, she will laugh.",
            "S'il tombe, elle rira.",
        ),
        (
            [clause(s.I, "think"), p.THAT, clause(ANNE, "work", s.PROGRESSIVE)],
            "I think that Anne is working.",
            "Je pense qu'Anne travaille.",
        ),
        (
            [clause(s.THERE, "have", polarity=s.NOT, object=phrase(INDEFINITE, "bird"))],
            "There is no bird.",
            "Il n'y a pas d'oiseau.",
        ),
        (
            [clause(s.THERE, "have", s.FUTURE, object=phrase(INDEFINITE, "owl", plural=True))],
            "There will be some owls.",
            "Il y aura des hiboux.",
        ),
        (
            [Question(clause(PAUL, "look for", s.PROGRESSIVE, gap=s.THIRD[0][0]), *p.WHAT)],
            "What is Paul looking for?",
            "Qu'est-ce que Paul cherche ?",
        ),
        (
            [Question(clause(MARIE, "buy", s.PAST, gap=COUNTED.agreement), asked=COUNTED)],
            "How many apples did Marie buy?",
            "Combien de pommes est-ce que Marie a achetées ?",
        ),
        (
            [clause(s.WHO, "open", s.PAST, object=phrase(THE, "door"))],
            "Who opened the door?",
            "Qui a ouvert la porte ?",
        ),
    ],
)
def test_sentences(items, english, french):
    assert realise(s.Sentence(tuple(items), english[-1])) == (english, french)


@pytest.mark.parametrize(
    ("infinitive", "forms"),
    [
        ("manger", "mange mangeons mangeais mangions mangera mangé"),
        ("acheter", "achète achetons achetais achetions achètera acheté"),
        ("choisir", "choisis choisissons choisissais choisissions choisira choisi"),
        ("vendre", "vends vendons vendais vendions vendra vendu"),
        ("nettoyer", "nettoie nettoyons nettoyais nettoyions nettoiera nettoyé"),
        ("étudier", "étudie étudions étudiais étudiions étudiera étudié"),
        ("voir", "vois voyons voyais voyions verra vu"),
        ("être", "suis sommes étais étions sera été"),
        ("prendre", "prends prenons prenais prenions prendra pris"),
        ("venir", "viens venons venais venions viendra venu"),
    ],
)
def test_conjugation(infinitive, forms):
    verb = conjugate(infinitive)
    found = (verb.present[0], verb.present[2], verb.imperfect[0], verb.imperfect[2])
    assert " ".join((*found, verb.future[1], verb.participle[0])) == forms


def test_every_verb_has_distinct_french():
    infinitives = [verb.french.infinitive for verb in VERBS.values()]
    assert len(set(infinitives)) == len(infinitives)


def test_past_of_english_verbs_differs_from_the_present():
    """Else "they read" would have two translations."""
    for verb in VERBS.values():
        assert verb.english[2] not in verb.english[:2] or verb.name == "must"


def test_adjectives_agree():
    for adjective in ADJECTIVES.values():
        group = adjective.groups[0]
        nouns = [noun for noun in NOUNS.values() if noun.group == group]
        for noun in nouns:
            for plural in (False, True):
                structure = NounPhrase(THE, noun, plural, (adjective,))
                form = adjective.french[noun.feminine + 2 * plural]
                expected = {form, adjective.liaison} if not (noun.feminine or plural) else {form}
                words = french_noun_phrase(structure, "subject")
                assert words[1 if adjective.before_noun else 2].text in expected
                assert english_noun_phrase(structure, "subject")[1].text == adjective.english


@pytest.mark.parametrize(
    ("full", "sounded"),
    [
        ("de le arbre", "de l'arbre"),
        ("à le hibou à les hommes de les hiboux", "au hibou aux hommes des hiboux"),
        ("est-ce que ils ne ont pas de huit", "est-ce qu'ils n'ont pas de huit"),
        ("si ils me le achètent si elle vient", "s'ils me l'achètent si elle vient"),
    ],
)
def test_sound(full, sounded):
    assert join(sound(spell(full, "noun"))) == sounded
