"""Text as people have it becomes the text that the model was trained on."""

import random
import unicodedata

import pytest

from flax_transformer.config import TokenizerConfig
from flax_transformer.text.normalization import is_blank, nfc_rules, typographic_spaces
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.text.vocabulary_file import load_tokenizer

SENTENCES = ["le chat noir dort ici", "un été à Noël", "the cat sees a dog", "naïve l'été !"] * 50
FRENCH = [
    "Quoi\u00a0? Oui\u202f!",
    "Non\u202f!",
    "«\u00a0Ah\u00a0» ; 10\u202f000 h",
    "2\u202f500",
] * 3


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    train_tokenizer(SENTENCES, TokenizerConfig(vocabulary_size=320), path, 0)
    return load_tokenizer(path)  # what is kept is in the file


@pytest.mark.parametrize(
    "odd",
    [
        "le chat\u00a0noir dort ici",
        "le\u2009chat noir\u202fdort ici",
        "le chat\tnoir\tdort ici",
        "\ufeffle chat noir dort ici",
        "le cha\u200bt no\u2060ir dort\u200b ici\u200e",
        "le   chat \u3000 noir  dort ici",
        "  le chat noir dort ici \r",
        "le\u2581chat\u2028noir\u0085dort ici",
        "le chat noir do\u00adrt ici\x07",
    ],
)
def test_white_space_of_every_kind_and_what_has_no_width(learnt, odd):
    assert learnt.encode([odd]) == learnt.encode(["le chat noir dort ici"])
    assert learnt.sample([odd], 0.3, 1) == learnt.sample(["le chat noir dort ici"], 0.3, 1)


def test_accents_of_their_own_are_those_of_the_letter(learnt):
    for text in ("un été à Noël", "가각", "Ấn Độ, ᾷ, ệ"):
        apart = unicodedata.normalize("NFD", text)
        assert apart != text
        assert learnt.encode([apart]) == learnt.encode([text])
        assert learnt.decode(learnt.encode([apart])) == [text]


def test_the_rules_are_unicodes():
    """Of every letter with accents, however written; nothing else is changed."""
    rules = nfc_rules()
    for written, composed in rules.items():
        if composed not in ("", " "):
            assert composed == unicodedata.normalize("NFC", written)
    letters = "éÅ\u212bự가각ḯ"
    for letter in letters:
        for form in ("NFD", "NFC"):
            written = unicodedata.normalize(form, letter)
            composed = unicodedata.normalize("NFC", letter)
            assert written == composed or rules[written] == composed
    kept = "aß漢😀\u200d\u200cﬁ①½"
    assert not rules.keys() & set(kept)


def test_identity_keeps_everything(tmp_path):
    settings = TokenizerConfig(vocabulary_size=320, normalization="identity")
    exact = train_tokenizer(SENTENCES, settings, tmp_path / "m", 0)
    text = " le\u00a0chat\t\u200b e\u0301  "
    assert exact.decode(exact.encode([text])) == [text]


def test_spaces_that_the_target_has_come_back(tmp_path):
    spaces = typographic_spaces(FRENCH)
    assert spaces[" !"] == "\u202f!" and spaces[" ?"] == "\u00a0?"
    assert spaces["« "] == "«\u00a0" and spaces[" »"] == "\u00a0»"
    assert spaces["7 1"] == "7\u202f1"
    assert " ;" not in spaces, "it has an ordinary one before it"
    settings = TokenizerConfig(vocabulary_size=320)
    french = train_tokenizer([*SENTENCES, *FRENCH], settings, tmp_path / "m", 0, (), spaces)
    (ids,) = french.encode(["« Oui ! » 3 000 ; Non ?"])
    assert french.encode(["«\u00a0Oui\u202f! »  3\u2009000 ; Non\u00a0?"]) == [ids]
    assert french.decode([ids]) == ["«\u00a0Oui\u202f!\u00a0» 3\u202f000 ; Non\u00a0?"]


def test_spaces_are_ordinary_where_most_of_them_are(tmp_path):
    assert typographic_spaces(["Oui !", "Non !", "Ah\u00a0!", "b\u00a0c"]) == {}
    assert typographic_spaces(["one\u00a0?"]) == {}, "seen once, it may be a slip"


def test_what_is_blank():
    for text in ("", " ", "\t\u00a0", "\u2581", "\u200b", "\ufeff\u200e", "\x00\x1b\u2028"):
        assert is_blank(text)
    for text in (".", "\u200b.", "😀", "\ue000", "\U0010ffff", "\u0301"):
        assert not is_blank(text)


def test_rare_characters_are_spelt_in_bytes(tmp_path):
    """Seven hundred that occur once each neither fill the vocabulary nor end the run."""
    rare = [chr(0x4E00 + i) for i in range(700)]
    text = [f"the cat sees a dog {character}" for character in rare]
    small = train_tokenizer(text, TokenizerConfig(vocabulary_size=400), tmp_path / "m", 0)
    assert small.vocabulary_size == 400
    assert len(small.encode(["the cat"])[0]) <= 2, "there is room for words"
    assert len(small.characters.intersection(rare)) <= 70
    random.Random(0).shuffle(rare)
    assert small.decode(small.encode(["".join(rare)])) == ["".join(rare)]


def test_coverage_leaves_out_what_is_hardly_ever_seen(tmp_path):
    text = [*SENTENCES, *["the cat sees a dog"] * 400, "the cat 漢 a dog"]
    for coverage, has_piece in ((1.0, True), (0.9995, False)):
        settings = TokenizerConfig(vocabulary_size=310, character_coverage=coverage)
        learnt = train_tokenizer(text, settings, tmp_path / "m", 0)
        assert ("漢" in learnt.characters) == has_piece and "g" in learnt.characters
