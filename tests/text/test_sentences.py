"""Where one sentence ends and another one begins."""

import pytest

from flax_transformer.text.sentences import sentence_starts, split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("He said: \"Go.\" Then he left… 'Why?'", ['He said: "Go."', "Then he left…", "'Why?'"]),
        ("Mr. Smith met J. R. Tolkien. Yes.", ["Mr. Smith met J. R. Tolkien.", "Yes."]),
        ("Am 3. Mai. Das ist z.B. Berlin.", ["Am 3. Mai.", "Das ist z.B. Berlin."]),
        ("3.5 of them, e.g. these, etc. and so on.", ["3.5 of them, e.g. these, etc. and so on."]),
        ("你好。再见！「好吗？」是", ["你好。", "再见！", "「好吗？」", "是"]),
        ("¿Qué? ¡Sí! (Claro.) Bien.", ["¿Qué?", "¡Sí!", "(Claro.)", "Bien."]),
        ("no end at all", ["no end at all"]),
        ("", []),
        (" . ", ["."]),
    ],
)
def test_sentences(text, sentences):
    assert split_sentences(text) == sentences


def test_starts_are_places_in_the_text():
    text = "One.  Two. three. Four."
    assert [text[start:] for start in sentence_starts(text)] == ["Two. three. Four.", "Four."]
