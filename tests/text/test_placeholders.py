"""Words that a vocabulary cannot spell in pieces."""

import pytest

from flax_transformer.text.placeholders import (
    PLACEHOLDERS,
    are_all_there,
    peel,
    put_back,
    put_in_both,
    put_placeholders,
    unreadable_words,
)

KNOWN = frozenset("abcdefghijklmnopqrstuvwxyzLIT'.,!?- 我们爱你。")
A, B, C, D = PLACEHOLDERS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the cat sees it.", []),
        ("I like 😀!", ["😀"]),
        ("👩\u200d👩\u200d👧❤\ufe0f!", ["👩\u200d👩\u200d👧❤\ufe0f"]),
        ("Łódź, or l'Ольга.", ["Łódź", "Ольга"]),
        ("Привет мир, 東京", ["Привет мир", "東京"]),
        ("我们爱東京。", ["東京"]),
        ("a 5 b 7", ["5", "7"]),
        (f"a{A}b", [A]),
    ],
)
def test_words_with_unknown_characters(text, words):
    assert unreadable_words(text, KNOWN) == words
    marked, found = put_placeholders(text, KNOWN)
    assert list(found.values()) == words and not set(marked) - KNOWN - set(PLACEHOLDERS)
    assert put_back(marked, found) == text


def test_there_are_four():
    marked, words = put_placeholders("😀 a 😁 b 😂 c 😃 d 😄", KNOWN)
    assert marked == f"{A} a {B} b {C} c {D} d 😄"
    assert list(words) == [A, B, C, D]


def test_the_order_may_change_and_what_stands_for_nothing_goes():
    _, words = put_placeholders("😀 a 😁", KNOWN)
    assert put_back(f"{B} x {A}{C}", words) == "😁 x 😀"


def test_only_what_both_sides_share():
    assert put_in_both("a Ω 😀", "b 😀.", KNOWN) == ("a Ω 😀", "b 😀.")
    assert put_in_both("a Ω, 😀", "b 😀.", KNOWN) == (f"a Ω, {A}", f"b {A}.")


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("😀 a b.", ("😀 ", "a b.", "")),
        ("a b. 😀 😁", ("", "a b.", " 😀 😁")),
        ("a b 😀😁", ("", "a b", " 😀😁")),
        ("a b?Ω", ("", "a b?", "Ω")),
        ("Ω a b.", ("", f"{A} a b.", "")),
        ("a b Ω", ("", f"a b {A}", "")),
        ("a 😀 b Ω.", ("", f"a {A} b {B}.", "")),
        ("😀", ("😀", "", "")),
        ("Ω", ("", "", "Ω")),
        ("a b.", ("", "a b.", "")),
    ],
)
def test_a_model_has_nothing_to_say_to_symbols_around_a_sentence(text, ends):
    assert peel(*put_placeholders(text, KNOWN)) == ends


def test_a_word_is_put_back_once_and_missed_where_it_is_not():
    _, words = put_placeholders("😀 a 😁", KNOWN)
    assert put_back(f"{A} b {A}{B}", words) == "😀 b 😁"
    assert are_all_there(f"{B}{A}", words) and not are_all_there(f"{A}{A}", words)
