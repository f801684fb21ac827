"""Regular inflection of both languages, and a table of the French verbs that are irregular.

French forms come in five persons, in this order: je, il/elle, nous, vous, ils/elles. The grammar
translates "you" as "vous" throughout, so no form of "tu" is needed.
"""

from typing import NamedTuple

ASPIRATED = ("hibou", "hiboux", "huit")
"""Words in h that take no elision; every other initial h of the lexicon is mute."""
ELIDING = "aeiouàâéèêîôœhyA"
"""Letters before which le, de, que and their like lose their vowel (A begins names)."""

_IMPERFECT_ENDINGS = ("ais", "ait", "ions", "iez", "aient")
_FUTURE_ENDINGS = ("ai", "a", "ons", "ez", "ont")

# Five forms of the present, past participle, stem of the future.
_IRREGULAR = {
    "aller": "vais va allons allez vont, allé, ir",
    "avoir": "ai a avons avez ont, eu, aur",
    "boire": "bois boit buvons buvez boivent, bu, boir",
    "courir": "cours court courons courez courent, couru, courr",
    "devoir": "dois doit devons devez doivent, dû, devr",
    "dire": "dis dit disons dites disent, dit, dir",
    "dormir": "dors dort dormons dormez dorment, dormi, dormir",
    "envoyer": "envoie envoie envoyons envoyez envoient, envoyé, enverr",
    "écrire": "écris écrit écrivons écrivez écrivent, écrit, écrir",
    "être": "suis est sommes êtes sont, été, ser",
    "ouvrir": "ouvre ouvre ouvrons ouvrez ouvrent, ouvert, ouvrir",
    "partir": "pars part partons partez partent, parti, partir",
    "pouvoir": "peux peut pouvons pouvez peuvent, pu, pourr",
    "prendre": "prends prend prenons prenez prennent, pris, prendr",
    "revenir": "reviens revient revenons revenez reviennent, revenu, reviendr",
    "rire": "ris rit rions riez rient, ri, rir",
    "savoir": "sais sait savons savez savent, su, saur",
    "sortir": "sors sort sortons sortez sortent, sorti, sortir",
    "suivre": "suis suit suivons suivez suivent, suivi, suivr",
    "venir": "viens vient venons venez viennent, venu, viendr",
    "voir": "vois voit voyons voyez voient, vu, verr",
    "vouloir": "veux veut voulons voulez veulent, voulu, voudr",
}

# The stem that carries the stress differs from the infinitive's (j'achète, j'achèterai).
_STRESSED_STEMS = {"acheter": "achèt", "lever": "lèv", "nettoyer": "nettoi"}


class Conjugation(NamedTuple):
    """Every form of one French verb that the grammar uses."""

    infinitive: str
    present: tuple[str, ...]
    imperfect: tuple[str, ...]
    future: tuple[str, ...]
    participle: tuple[str, ...]
    """Masculine, feminine, masculine plural, feminine plural."""


def conjugate(infinitive: str) -> Conjugation:
    """Returns the forms of a French verb in -er, -ir or -re; irregular ones come from the table."""
    if entry := _IRREGULAR.get(infinitive):
        forms, participle, future = entry.split(", ")
        present = tuple(forms.split())
    elif infinitive.endswith("er"):
        present, participle, future = _first_group(infinitive)
    elif infinitive.endswith("ir"):
        stem = infinitive[:-2]
        present = tuple(stem + e for e in ("is", "it", "issons", "issez", "issent"))
        participle, future = stem + "i", infinitive
    else:
        stem = infinitive.removesuffix("re")
        present = tuple(stem + e for e in ("s", "", "ons", "ez", "ent"))
        participle, future = stem + "u", stem + "r"
    return Conjugation(
        infinitive,
        present,
        _imperfect("ét" if infinitive == "être" else present[2].removesuffix("ons")),
        tuple(future + ending for ending in _FUTURE_ENDINGS),
        french_forms(participle),
    )


def _first_group(infinitive: str) -> tuple[tuple[str, ...], str, str]:
    stem = infinitive[:-2]
    stressed = _STRESSED_STEMS.get(infinitive, stem)
    soft = stem + "e" if stem.endswith("g") else stem  # g stays soft before o: mangeons
    present = (stressed + "e", stressed + "e", soft + "ons", stem + "ez", stressed + "ent")
    return present, stem + "é", stressed + "er"


def _imperfect(stem: str) -> tuple[str, ...]:
    before_i = stem.removesuffix("e") if stem.endswith("ge") else stem
    return tuple((before_i if e[0] == "i" else stem) + e for e in _IMPERFECT_ENDINGS)


def french_forms(masculine: str, feminine: str | None = None) -> tuple[str, ...]:
    """Returns an adjective or participle: masculine, feminine, and both again in the plural."""
    feminine = feminine or (masculine if masculine.endswith("e") else masculine + "e")
    return masculine, feminine, french_plural(masculine), feminine + "s"


def french_plural(word: str) -> str:
    """Returns the plural of a French noun or adjective; -al and -ou are given in the lexicon."""
    if word.endswith(("s", "x", "z")):
        return word
    return word + ("x" if word.endswith("eau") else "s")


def is_elided(word: str) -> bool:
    """Returns whether le, de, que and their like lose their vowel before this French word."""
    return word[0] in ELIDING and word not in ASPIRATED


def english_s_form(word: str) -> str:
    """Returns the plural of an English noun, or the third person of a verb."""
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("ch", "sh", "s", "x", "o")) else "s")


def english_past(base: str) -> str:
    """Returns the past of a regular English verb."""
    if base.endswith("y") and base[-2] not in "aeiou":
        return base[:-1] + "ied"
    return base + ("d" if base.endswith("e") else "ed")


def english_ing(base: str) -> str:
    """Returns the -ing form of a regular English verb that does not double its last letter."""
    return base.removesuffix("e") + "ing"
