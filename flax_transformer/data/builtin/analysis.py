"""The truth about pairs of the built-in corpus: what each word is, and which translate each other.

    pair = analysed_pairs("test", 1)[0]
    [(pair.source_words[i].text, pair.target_words[j].text) for i, j in sorted(pair.alignment)]

It comes from the code that makes the text (`english`, `french`), so it holds without exception.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from flax_transformer.data.builtin import SPLITS, draw_pairs, english, french
from flax_transformer.data.builtin.structure import PartOfSpeech, Sentence
from flax_transformer.data.builtin.words import CONTENT, Gender, Number, Words, join
from flax_transformer.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """A word of a sentence; "l'" and "'s" are words of their own, and so are marks.

    start, end      its place in the text: text[start:end]
    part_of_speech  of a contraction such as "du" that of its first word
    gender, number  where it has or shows them: those of the noun also for what agrees with it.
                    English words have no gender
    """

    text: str
    start: int
    end: int
    part_of_speech: PartOfSpeech
    gender: Gender | None
    number: Number | None

    @property
    def is_content(self) -> bool:
        """Whether it is a noun, name, verb, adjective or adverb; no auxiliary, modal or copula."""
        return self.part_of_speech in CONTENT


@dataclass(frozen=True, kw_only=True, slots=True)
class AnalysedPair:
    """A sentence pair and the truth about it.

    alignment: pairs of a source word and a target word that translate each other, by their places
               in `source_words` and `target_words`; a word may be in several or in none
    """

    source: str
    target: str
    source_words: tuple[Word, ...]
    target_words: tuple[Word, ...]
    alignment: frozenset[tuple[int, int]]

    @property
    def sure_alignment(self) -> frozenset[tuple[int, int]]:
        """The links between two words of the same part of speech.

        The others, such as that of "will" and "mangera", are what Och and Ney 2003 call possible.
        """
        source, target = self.source_words, self.target_words
        return frozenset(
            (i, j)
            for i, j in self.alignment
            if source[i].part_of_speech == target[j].part_of_speech
        )


def analysed_pairs(split: str, most: int) -> list[AnalysedPair]:
    """Returns the first pairs of a split, as `generate` has them, at most as many as asked for.

    Raises `UserError` where there is no such split.
    """
    if split not in SPLITS:
        raise UserError(f"there is no split '{split}', only {', '.join(SPLITS)}")
    drawn = draw_pairs(most if split == "train" else 0)
    structures = (structure for name, structure, _ in drawn if name == split)
    return [analyse(structure) for structure in islice(structures, most)]


def analyse(structure: Sentence) -> AnalysedPair:
    """Returns a sentence structure in English and French, with the truth about the words."""
    source, target = english.realise(structure), french.realise(structure)
    alignment = frozenset(
        (i, j)
        for i, word in enumerate(source)
        for j, translation in enumerate(target)
        if not set(word.origins).isdisjoint(translation.origins)
    )
    return AnalysedPair(
        source=join(source),
        target=join(target),
        source_words=tuple(_placed(source)),
        target_words=tuple(_placed(target)),
        alignment=alignment,
    )


def _placed(words: Words) -> Iterator[Word]:
    end = -1  # before the first word there is no space
    for word in words:
        start = end if word.glued else end + 1
        end = start + len(word.text)
        yield Word(
            text=word.text,
            start=start,
            end=end,
            part_of_speech=word.part_of_speech,
            gender=word.features.gender,
            number=word.features.number,
        )
