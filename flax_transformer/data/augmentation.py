"""Changes some training pairs, so that a model learns what text seldom teaches.

That is to carry over words that it cannot read, and to go on after the end of a sentence.
"""

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from flax_transformer.data.pairs import Pair
from flax_transformer.text.placeholders import PLACEHOLDERS

_WORD = re.compile(r"\w+")
_COUNTS = (1, 1, 2, 3)
"""Numbers of placeholders to choose from, each entry as likely, for a pair that gets some."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to some pairs of a stretch of text, a function of the seed and of their place.

    placeholders: share of the pairs that get the same placeholders on both sides.
    concatenate:  share of the pairs that are followed by the next pair's text.
    """

    placeholders: float
    concatenate: float
    seed: int

    def __call__(self, pairs: Sequence[Pair], place: tuple[int, ...]) -> list[Pair]:
        """Returns `pairs`, some of them changed: as many as there are."""
        draw = random.Random(zlib.crc32(repr((self.seed, *place)).encode()))
        augmented = []
        for number, pair in enumerate(pairs):
            if draw.random() < self.concatenate and number + 1 < len(pairs):
                pair = _concatenate(pair, pairs[number + 1])
            if draw.random() < self.placeholders and all(map(str.strip, pair)):
                for placeholder in draw.sample(PLACEHOLDERS, draw.choice(_COUNTS)):
                    pair = _with_placeholder(pair, placeholder, draw)
            augmented.append(pair)
        return augmented


def _concatenate(pair: Pair, following: Pair) -> Pair:
    if not all(map(str.strip, following)):
        return pair
    return f"{pair[0]} {following[0]}", f"{pair[1]} {following[1]}"


def _with_placeholder(pair: Pair, placeholder: str, draw: random.Random) -> Pair:
    """Returns `pair` with `placeholder` on both sides.

    It replaces a word that both sides share, such as a name, or stands between words, as far along
    on both sides.
    """
    shared = sorted(set(_WORD.findall(pair[0])) & set(_WORD.findall(pair[1])))
    if shared and draw.random() < 0.5:
        word = re.compile(rf"\b{re.escape(draw.choice(shared))}\b")
        return word.sub(placeholder, pair[0], count=1), word.sub(placeholder, pair[1], count=1)
    where = draw.random()
    return _insert(pair[0], placeholder, where), _insert(pair[1], placeholder, where)


def _insert(text: str, placeholder: str, where: float) -> str:
    words = text.split(" ")
    place = round(where * len(words))
    return " ".join([*words[:place], placeholder, *words[place:]])
