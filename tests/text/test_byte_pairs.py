"""Merging long words by a queue, against the plain loop for short ones."""

import random

import numpy as np
import pytest

from flax_transformer.text import byte_pairs

SYMBOLS = ["ab", "ba", "abab", "cc", "abc", "cab", "aa", "bb", "aaaa", "abba", "bc", "babc", "ccab"]
IDS = {symbol: number for number, symbol in enumerate(SYMBOLS)}


def draw_word(seed: int, length: int) -> str:
    return "".join(random.Random(seed).choices("abcx", k=length))


def test_without_dropout_both_make_the_same_symbols():
    for seed in range(300):
        word = draw_word(seed, length=seed % 60)
        expected = byte_pairs._merge_short(word, IDS, 0.0, lambda: 1.0)
        assert byte_pairs._merge_long(word, IDS, 0.0, lambda: 1.0) == expected
        assert "".join(expected) == word


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_with_dropout_every_splitting_is_as_likely(dropout):
    """Within five standard deviations of the difference of two shares."""
    word, count = "abababcc", 4000
    shares = []
    for merge in (byte_pairs._merge_short, byte_pairs._merge_long):
        draw = random.Random(1).random
        splits = [tuple(merge(word, IDS, dropout, draw)) for _ in range(count)]
        assert {"".join(split) for split in splits} == {word}
        shares.append({split: splits.count(split) / count for split in splits})
    assert len(shares[0]) > 5
    for split in shares[0].keys() | shares[1].keys():
        short, long = (share.get(split, 0.0) for share in shares)
        mean = (short + long) / 2
        assert abs(short - long) < 5 * np.sqrt(2 * mean * (1 - mean) / count), split


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_work_for_a_long_word_grows_with_its_length(dropout):
    """Counted in draws: with the square of the length these would be over a hundred million."""
    word, draws, random_number = draw_word(0, length=20_000), 0, random.Random(0).random

    def draw() -> float:
        nonlocal draws
        draws += 1
        assert draws < 2 * len(word), "as many draws as characters would be enough"
        return random_number()

    symbols = byte_pairs.merge(word, IDS, dropout, draw)
    assert "".join(symbols) == word and len(symbols) < 0.8 * len(word)
