"""The built-in corpus: English to French, made by a small synchronous grammar of this project.

A sentence is first drawn as a structure (`structure`), with words from `lexicon`, and then put
into words twice, by `english` and by `french`; so it is known which words translate each other
(`analysis`). The French shows what makes translation more than
a dictionary: agreement, adjectives after the noun, elision and contraction, negation around the
verb, pronouns that move before it, two past tenses, a future after "when". The English sentence
alone always decides the French one.
"""

from collections.abc import Iterator

from flax_transformer.data.builtin import english, french
from flax_transformer.data.builtin.noun_phrases import Draw
from flax_transformer.data.builtin.sentences import sentence
from flax_transformer.data.builtin.structure import Sentence
from flax_transformer.data.builtin.words import join
from flax_transformer.errors import UserError

SPLITS = ("train", "validation", "test", "test_compositional")
MAX_PAIRS = 1_000_000
"""Most training pairs that can be asked for."""
SENTENCE_WORDS = range(3, 36)
"""English words in a sentence."""
HELD_OUT_PAIRS = 500
"""Pairs in each of validation, test and test_compositional."""
SEED = 1
"""Seed with which training has every word of the other splits from 40,000 pairs on."""


def generate(num_pairs: int) -> dict[str, list[tuple[str, str]]]:
    """Returns the splits by name.

    train:              `num_pairs` pairs.
    validation:         500 pairs.
    test:               500 pairs.
    test_compositional: 500 pairs, each with a combination of words that no other split has
                        (`withheld`).

    No two pairs, of whatever splits, share an English or a French sentence. The same `num_pairs`
    always gives the same pairs; a smaller number gives the first of a larger number's pairs. The
    other splits never change. Raises `UserError` above `MAX_PAIRS`.
    """
    if num_pairs > MAX_PAIRS:
        raise UserError(
            f"data.num_pairs is {num_pairs}, but the built-in grammar makes at most {MAX_PAIRS} "
            "pairs: ask for fewer, or train on text files or a TFDS dataset"
        )
    splits: dict[str, list[tuple[str, str]]] = {name: [] for name in SPLITS}
    for name, _, pair in draw_pairs(num_pairs):
        splits[name].append(pair)
    return splits


def draw_pairs(num_pairs: int) -> Iterator[tuple[str, Sentence, tuple[str, str]]]:
    """Yields the pairs of all splits as they are drawn, each with its split and its structure."""
    room = dict(zip(SPLITS, (num_pairs, *[HELD_OUT_PAIRS] * 3), strict=True))
    draw, seen = Draw(SEED), set[str]()
    while room["train"] or room["test_compositional"]:
        structure = sentence(draw)
        pair = realise(structure)
        if pair[0] in seen or pair[1] in seen or pair[0].count(" ") + 1 not in SENTENCE_WORDS:
            continue
        seen.update(pair)
        names = ("test_compositional",) if draw.withheld else ("validation", "test", "train")
        for name in names:
            if room[name]:
                room[name] -= 1
                yield name, structure, pair
                break


def realise(structure: Sentence) -> tuple[str, str]:
    """Returns a sentence structure in English and in French."""
    return join(english.realise(structure)), join(french.realise(structure))
