"""The words of the built-in corpus: one French word for each English word.

Nouns stand in groups, and verbs and adjectives name the groups that they go with, which keeps
the sentences sensible.
"""

from dataclasses import dataclass

from flax_transformer.data.builtin.inflection import (
    Conjugation,
    conjugate,
    english_ing,
    english_past,
    english_s_form,
    french_forms,
    french_plural,
    is_elided,
)


@dataclass(frozen=True, slots=True, eq=False)
class Noun:
    """A noun; `forms` are singular and plural."""

    english: tuple[str, str]
    french: tuple[str, str]
    feminine: bool
    group: str
    elided: bool
    mass: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Adjective:
    """An adjective; French forms are masculine, feminine, and both again in the plural."""

    english: str
    french: tuple[str, ...]
    before_noun: bool
    """Whether it stands before the noun in French, as few do."""
    liaison: str
    """Masculine singular before a vowel: bel, nouvel, vieil."""
    comparative: str
    """English comparative, or nothing where none makes sense."""
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Verb:
    """A verb; English forms are base, third person, past, -ing."""

    english: tuple[str, str, str, str]
    particle: str
    french: Conjugation
    kind: str
    """transitive, giving, plain, motion, reflexive, state, modal or attitude."""
    aspect: str = "active"
    """state: past in the imparfait; event: no progressive; accident: an event nobody wishes for."""
    with_etre: bool = False
    groups: tuple[str, ...] = ()
    """Groups of the direct objects."""
    animals: bool = False
    """Whether animals do it."""

    @property
    def name(self) -> str:
        return f"{self.english[0]} {self.particle}".strip()


@dataclass(frozen=True, slots=True, eq=False)
class Determiner:
    """An article, possessive, demonstrative, numeral or quantity."""

    english: tuple[str, str]
    """Singular, plural."""
    french: tuple[str, str, str]
    """Masculine, feminine, plural."""
    indefinite: bool = False
    """Becomes any/de as the object of a negated verb."""


_NOUNS = {
    "person": "boy garçon m, girl fille f, man/men homme m, woman/women femme f, "
    "child/children enfant m, teacher professeur m, doctor médecin m, neighbour voisin m, "
    "friend ami m, student étudiant m, king roi m, queen reine f, brother frère m, sister sœur f, "
    "uncle oncle m, aunt tante f, actress actrice f, nurse infirmière f",
    "animal": "dog chien m, cat chat m, horse cheval/chevaux m, bird oiseau m, cow vache f, "
    "hen poule f, mouse/mice souris f, rabbit lapin m, owl hibou/hiboux m",
    "fruit": "apple pomme f, pear poire f, cherry cerise f, egg œuf m, cake gâteau m, "
    "carrot carotte f, orange orange f, lemon citron m",
    "food": "bread pain m, cheese fromage m, soup soupe f, meat viande f, rice riz m",
    "drink": "water eau f, milk lait m, coffee café m, tea thé m, wine vin m",
    "document": "book livre m, letter lettre f, story histoire f, poem poème m",
    "clothing": "hat chapeau m, dress robe f, shirt chemise f, coat manteau m, shoe chaussure f",
    "object": "key clé f, knife/knives couteau m, umbrella parapluie m, ring bague f, "
    "guitar guitare f, computer ordinateur m, chair chaise f, lamp lampe f, clock horloge f",
    "vehicle": "car voiture f, bicycle vélo m, boat bateau m, plane avion m",
    "fixture": "door porte f, window fenêtre f, box boîte f, suitcase valise f",
    "place": "garden jardin m, kitchen cuisine f, school école f, market marché m, park parc m, "
    "hospital hôpital/hôpitaux m, church église f, library bibliothèque f, station gare f, "
    "restaurant restaurant m, village village m, hotel hôtel m, island île f, office bureau m, "
    "forest forêt f, castle château m, house maison f, beach plage f",
    "name": "Marie Marie f, Anne Anne f, Julie Julie f, Paul Paul m, Antoine Antoine m, "
    "Pierre Pierre m",
}


def _noun(entry: str, group: str) -> Noun:
    english, french, gender = entry.split()
    singular, _, plural = english.partition("/")
    singulier, _, pluriel = french.partition("/")
    return Noun(
        (singular, plural or english_s_form(singular)),
        (singulier, pluriel or french_plural(singulier)),
        gender == "f",
        group,
        is_elided(singulier),
        group in ("food", "drink"),
    )


NOUN_GROUPS = {
    group: tuple(_noun(entry, group) for entry in entries.split(", "))
    for group, entries in _NOUNS.items()
}
NOUNS = {noun.english[0]: noun for group in NOUN_GROUPS.values() for noun in group}

_GOODS = "document clothing object vehicle fixture"
_COLOURED = "clothing object vehicle fixture"


def _adjective(
    english: str, french: str, groups: str, before: bool = False, comparative: str = ""
) -> Adjective:
    masculine, _, rest = french.partition("/")
    feminine, _, liaison = rest.partition("/")
    return Adjective(
        english,
        french_forms(masculine, feminine or None),
        before,
        liaison or masculine,
        comparative,
        tuple(groups.split()),
    )


_ADJECTIVE_LIST = (
    _adjective("small", "petit", f"person animal fruit place {_GOODS}", True, "smaller"),
    _adjective("big", "grand", f"animal place {_GOODS}", True, "bigger"),
    _adjective("tall", "grand", "person", True, "taller"),
    _adjective("beautiful", "beau/belle/bel", f"animal place {_GOODS}", True, "more beautiful"),
    _adjective("old", "vieux/vieille/vieil", f"person animal place {_GOODS}", True, "older"),
    _adjective("new", "nouveau/nouvelle/nouvel", f"person place {_GOODS}", True),
    _adjective("young", "jeune", "person animal", True, "younger"),
    _adjective("good", "bon/bonne", "fruit food drink document", True),
    _adjective("long", "long/longue", "document", True, "longer"),
    _adjective("red", "rouge", f"fruit {_COLOURED}"),
    _adjective("black", "noir", f"animal {_COLOURED}"),
    _adjective("white", "blanc/blanche", f"animal {_COLOURED}"),
    _adjective("green", "vert", f"fruit {_COLOURED}"),
    _adjective("blue", "bleu", _COLOURED),
    _adjective("grey", "gris", f"animal {_COLOURED}"),
    _adjective("heavy", "lourd", "document clothing object fixture", comparative="heavier"),
    _adjective("expensive", "cher/chère", f"fruit food {_GOODS}", comparative="more expensive"),
    _adjective("dirty", "sale", f"animal place {_COLOURED}", comparative="dirtier"),
    _adjective("empty", "vide", "place"),
    _adjective("cold", "froid", "food drink", comparative="colder"),
    _adjective("fresh", "frais/fraîche", "fruit food drink", comparative="fresher"),
    _adjective("interesting", "intéressant", "document place", comparative="more interesting"),
    _adjective("strange", "étrange", f"person animal place {_GOODS}", comparative="stranger"),
    _adjective("kind", "gentil/gentille", "person", comparative="kinder"),
    _adjective("happy", "heureux/heureuse", "person", comparative="happier"),
    _adjective("sad", "triste", "person animal document", comparative="sadder"),
    _adjective("tired", "fatigué", "person animal"),
    _adjective("sick", "malade", "person animal"),
    _adjective("rich", "riche", "person", comparative="richer"),
    _adjective("famous", "célèbre", "person place", comparative="more famous"),
    _adjective("nervous", "nerveux/nerveuse", "person animal", comparative="more nervous"),
    _adjective("proud", "fier/fière", "person", comparative="prouder"),
)
ADJECTIVES = {adjective.english: adjective for adjective in _ADJECTIVE_LIST}
COLOURS = tuple(ADJECTIVES[name] for name in ("red", "black", "white", "green", "blue", "grey"))


def _verb(
    english: str, french: str, kind: str, groups: str = "", *, particle: str = "", **properties
) -> Verb:
    base, *irregular = english.split()
    past, ing = irregular or (english_past(base), english_ing(base))
    third = "has" if base == "have" else english_s_form(base)
    return Verb(
        (base, third, past, ing),
        particle,
        conjugate(french),
        kind,
        groups=tuple(groups.split()),
        **properties,
    )


_BUYABLE = f"fruit food drink {_GOODS}"
_SMALL = "document clothing object"

_VERB_LIST = (
    _verb("eat ate eating", "manger", "transitive", "fruit food", animals=True),
    _verb("drink drank drinking", "boire", "transitive", "drink", animals=True),
    _verb("buy bought buying", "acheter", "transitive", _BUYABLE),
    _verb("sell sold selling", "vendre", "transitive", _BUYABLE),
    _verb(
        "see saw seeing", "voir", "transitive", f"person name animal place {_GOODS}",
        aspect="event", animals=True,
    ),
    _verb(
        "look", "chercher", "transitive", f"person name animal {_SMALL}",
        particle="for", animals=True,
    ),
    _verb("watch", "regarder", "transitive", "person name animal", animals=True),
    _verb("study", "étudier", "transitive", "document"),
    _verb("write wrote writing", "écrire", "transitive", "document"),
    _verb("lose lost losing", "perdre", "transitive", _SMALL, aspect="accident"),
    _verb("find found finding", "trouver", "transitive", f"animal {_SMALL}", aspect="event"),
    _verb("open", "ouvrir", "transitive", "fixture"),
    _verb("close", "fermer", "transitive", "fixture"),
    _verb("love", "aimer", "transitive", "person name animal", aspect="state"),
    _verb("wash", "laver", "transitive", "clothing vehicle fruit"),
    _verb("draw drew drawing", "dessiner", "transitive", "person name animal place object"),
    _verb("take took taking", "prendre", "transitive", _SMALL, aspect="event"),
    _verb("forget forgot forgetting", "oublier", "transitive", _SMALL, aspect="accident"),
    _verb("clean", "nettoyer", "transitive", "place vehicle"),
    _verb("repair", "réparer", "transitive", "object vehicle fixture"),
    _verb("wear wore wearing", "porter", "transitive", "clothing"),
    _verb("follow", "suivre", "transitive", "person name animal vehicle", animals=True),
    _verb("visit", "visiter", "transitive", "place"),
    _verb("help", "aider", "transitive", "person name"),
    _verb("wait", "attendre", "transitive", "person name", particle="for"),
    _verb("choose chose choosing", "choisir", "transitive", f"fruit {_GOODS}", aspect="event"),
    _verb("invite", "inviter", "transitive", "person name"),
    _verb("give gave giving", "donner", "giving", _SMALL),
    _verb("send sent sending", "envoyer", "giving", _SMALL),
    _verb("show showed showing", "montrer", "giving", f"vehicle {_SMALL}"),
    _verb("lend lent lending", "prêter", "giving", f"vehicle {_SMALL}"),
    _verb("sleep slept sleeping", "dormir", "plain", animals=True),
    _verb("work", "travailler", "plain"),
    _verb("sing sang singing", "chanter", "plain"),
    _verb("dance", "danser", "plain"),
    _verb("cry", "pleurer", "plain"),
    _verb("swim swam swimming", "nager", "plain", animals=True),
    _verb("run ran running", "courir", "plain", animals=True),
    _verb("play", "jouer", "plain", animals=True),
    _verb("laugh", "rire", "plain"),
    _verb("stay", "rester", "plain", with_etre=True, animals=True),
    _verb("fall fell falling", "tomber", "plain", aspect="accident", with_etre=True, animals=True),
    _verb("go went going", "aller", "motion", with_etre=True),
    _verb("come came coming", "venir", "motion", with_etre=True, animals=True),
    _verb("arrive", "arriver", "motion", with_etre=True, animals=True),
    _verb("leave left leaving", "partir", "plain", with_etre=True, animals=True),
    _verb("go went going", "sortir", "plain", particle="out", with_etre=True, animals=True),
    _verb(
        "come came coming", "revenir", "motion", particle="back", with_etre=True, animals=True
    ),
    _verb("get got getting", "lever", "reflexive", particle="up"),
    _verb("go went going", "coucher", "reflexive", particle="to bed"),
    _verb("wake woke waking", "réveiller", "reflexive", particle="up", animals=True),
    _verb("rest", "reposer", "reflexive", animals=True),
    _verb("hurry", "dépêcher", "reflexive"),
    _verb("have had having", "amuser", "reflexive", particle="fun"),
    _verb("be was being", "être", "state", aspect="state", animals=True),
    _verb("have had having", "avoir", "state", f"person animal {_GOODS}", aspect="state"),
    _verb("want", "vouloir", "modal", particle="to", aspect="state", animals=True),
    _verb("can could can", "pouvoir", "modal", aspect="state", animals=True),
    _verb("must must must", "devoir", "modal", aspect="state", animals=True),
    _verb("think thought thinking", "penser", "attitude", aspect="state"),
    _verb("know knew knowing", "savoir", "attitude", aspect="state"),
    _verb("say said saying", "dire", "attitude", aspect="event"),
)  # fmt: skip
VERBS = {verb.name: verb for verb in _VERB_LIST}

_NUMERALS = "two deux, three trois, four quatre, five cinq, six six, eight huit, ten dix"
NUMERALS = tuple(
    Determiner((english, english), (french, french, french))
    for english, french in (pair.split() for pair in _NUMERALS.split(", "))
)
THE = Determiner(("the", "the"), ("le", "la", "les"))
INDEFINITE = Determiner(("a", "some"), ("un", "une", "des"), True)
PARTITIVE = Determiner(("some", "some"), ("de le", "de la", "de les"), True)
THIS = Determiner(("this", "these"), ("ce", "cette", "ces"))
MANY = Determiner(("many", "many"), ("beaucoup de",) * 3)
HOW_MANY = Determiner(("how many",) * 2, ("combien de",) * 3)
NAMED = Determiner(("", ""), ("", "", ""))
POSSESSIVES = tuple(
    Determiner((english, english), (masculine, feminine, plural))
    for english, masculine, feminine, plural in (
        ("my", "mon", "ma", "mes"),
        ("your", "votre", "votre", "vos"),
        ("his", "son", "sa", "ses"),
        ("her", "son", "sa", "ses"),
        ("our", "notre", "notre", "nos"),
        ("their", "leur", "leur", "leurs"),
    )
)
