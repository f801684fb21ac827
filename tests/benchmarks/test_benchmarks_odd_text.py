"""What the benchmark of odd text counts, with translators that make known mistakes."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = ["we saw Tom in the garden today", "yes", "my friend Mary reads two old books"]


@pytest.fixture
def odd_text(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import odd_text

    return odd_text


@pytest.mark.parametrize("place", ["start", "middle", "end", "name"])
def test_what_is_carried_over_is_counted(odd_text, place):
    faithful = odd_text.carried(list, LINES, place)
    lines = 2 if place == "name" else 3
    assert faithful == {"lines": lines, "carried over": 1.0, "rest as without": 1.0}

    def ascii_only(lines):
        return [line.encode("ascii", "ignore").decode() for line in lines]

    lost = odd_text.carried(ascii_only, LINES, place)
    # Where it stands in place of a name, the name is gone with it.
    assert lost["carried over"] == 0 and lost["rest as without"] == (place != "name")

    def confused(lines):
        return [line if line.isascii() else "and now " + line for line in lines]

    harmed = odd_text.carried(confused, LINES, place)
    assert harmed == {"lines": lines, "carried over": 1.0, "rest as without": 0.0}


def test_bleu_falls_where_white_space_or_several_sentences_matter(odd_text):
    references = [f"{line} ." for line in 4 * LINES]
    found = odd_text.bleu(list, references, references, concatenated=12)
    assert found["plain"] == found["3 sentences a line"] == pytest.approx(100)
    assert found["zero-width space"] < 100

    def first_words(lines):
        return [" ".join(line.split(" ")[:8]) for line in lines]

    cut = odd_text.bleu(first_words, references, references, concatenated=12)
    assert cut["plain"] > 90 > cut["3 sentences a line"]


def test_a_character_takes_the_place_of_a_space(odd_text):
    import random

    for character in odd_text.CHARACTERS.values():
        changed = odd_text.put_in(LINES[0], character, random.Random(0))
        assert changed != LINES[0] and character in changed
        words = changed.replace(character, " ").split()
        assert words == LINES[0].split()
