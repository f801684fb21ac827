"""What probes are to find in hidden states: the properties of words, and random ones as a control.

Letters: n words.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from flax_transformer.data.builtin.analysis import AnalysedPair, Word
from flax_transformer.errors import require
from flax_transformer.inspection.pair_rows import PairRow

Place = Literal["encoder", "decoder reads", "decoder writes"]
"""Where a word is looked for: in the encoder, at its own position; in the decoder, where it is the
input, or where the model is about to write it."""

Property = Literal["position", "word", "part of speech", "gender", "number"]
PROPERTIES: tuple[Property, ...] = get_args(Property)

_MOST_WORDS = 200
"""Word types that are told apart by the property "word": the most frequent ones."""

Labels = dict[Property, str | None]


class ProbedWord(NamedTuple):
    """A word, the token at which it is looked for, and its labels."""

    token: int
    word_type: str
    labels: Labels


def probed_words(row: PairRow, place: Place) -> list[ProbedWord]:
    """Returns the words of one side of a pair, each with what there is to find.

    Of several tokens the last is taken, which may know the word as a whole; where a word is about
    to be written, the step that writes the first. Gender and number are those of the French: an
    English word has the ones of the words that translate it, unless they differ.
    """
    pair = row.pair
    if place == "encoder":
        words, tokens = pair.source_words, [tokens[-1] for tokens in row.source_tokens]
        shown = [_translations(pair, i) for i in range(len(words))]
    else:
        words = pair.target_words
        shown = [[word] for word in words]
        # One step after a token is written it is the decoder's input.
        reads = place == "decoder reads"
        tokens = [tokens[-1] + 1 if reads else tokens[0] for tokens in row.target_tokens]
    return [
        ProbedWord(token, word.text.lower(), _labels(token, word, french))
        for token, word, french in zip(tokens, words, shown, strict=True)
    ]


def _translations(pair: AnalysedPair, source_word: int) -> list[Word]:
    return [pair.target_words[j] for i, j in pair.alignment if i == source_word]


def _labels(token: int, word: Word, french: Sequence[Word]) -> Labels:
    return {
        "position": str(token),
        "word": word.text.lower(),
        "part of speech": word.part_of_speech,
        "gender": _agreed(each.gender for each in french),
        "number": _agreed(each.number for each in french),
    }


def _agreed(values: Iterable[str | None]) -> str | None:
    """Returns the one value that there is, None where there are none or several."""
    found = {value for value in values if value is not None}
    return found.pop() if len(found) == 1 else None


class Task(NamedTuple):
    """Labels to learn and labels to test on, of every word of two samples.

    names          of the labels
    learn, test    (n,), places in `names`; -1 for a word without such a label
    """

    names: list[str]
    learn: np.ndarray
    test: np.ndarray


def tasks_of(
    learn: Sequence[ProbedWord], test: Sequence[ProbedWord], seed: int = 0
) -> list[tuple[Property, Task, Task]]:
    """Returns every property with its task and the control task of Hewitt and Liang 2019.

    seed: of the labels of the control

    Raises `UserError` where no word of a sample has a property.
    """
    random = np.random.default_rng(seed)
    types = sorted({word.word_type for word in (*learn, *test)})
    found = []
    for name in PROPERTIES:
        truth = [[word.labels[name] for word in words] for words in (learn, test)]
        counts = Counter(label for label in truth[0] if label is not None)
        if name == "word":
            counts = Counter(dict(counts.most_common(_MOST_WORDS)))
        truth = [[label if label in counts else None for label in side] for side in truth]
        for sample, labels in zip(("learn from", "test on"), truth, strict=True):
            require(
                any(label is not None for label in labels),
                f"none of the {len(labels)} words to {sample} has a {name}: take more sentences",
            )
        names = sorted(counts)
        shares = np.array([counts[label] for label in names]) / counts.total()
        drawn = dict(zip(types, random.choice(names, len(types), p=shares), strict=True))
        control = [
            [
                None if label is None else str(drawn[word.word_type])
                for word, label in zip(words, labels, strict=True)
            ]
            for words, labels in zip((learn, test), truth, strict=True)
        ]
        found.append((name, _task(names, *truth), _task(names, *control)))
    return found


def _task(names: list[str], learn: list[str | None], test: list[str | None]) -> Task:
    places = {name: place for place, name in enumerate(names)}
    sides = ([places.get(label or "", -1) for label in side] for side in (learn, test))
    return Task(names, *(np.array(side, np.int32) for side in sides))
