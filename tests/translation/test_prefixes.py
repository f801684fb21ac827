"""From a prefix to the tokens that a translation begins with."""

import dataclasses

import pytest

from flax_transformer.config import Config, DecodingConfig, TokenizerConfig, TransformerConfig
from flax_transformer.errors import UserError
from flax_transformer.text.placeholders import PLACEHOLDERS
from flax_transformer.text.sentences import TrainedLengths
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.translation.long_lines import Piece
from flax_transformer.translation.prefixes import cut_to_begin

CONFIG = Config(decoding=DecodingConfig(max_source_length=32, extra_length=20))
TEXT = ["the cat sees a red house and we eat bread", "le chat voit la maison rouge", "The We . ! ?"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    return train_tokenizer(TEXT, TokenizerConfig(vocabulary_size=330), path, seed=0)


def cut(line: str, prefix: str, tokenizer, **options) -> list[Piece]:
    neighbours = ["the cat", line, "we eat"], ["", prefix, ""]
    before, pieces, after = cut_to_begin(*neighbours, CONFIG, tokenizer, **options)
    assert not before[0].forced and not after[0].forced
    return pieces


def forced(piece: Piece, tokenizer) -> str:
    return tokenizer.decode([piece.forced])[0]


@pytest.mark.parametrize(
    ("prefix", "begins"),
    [
        ("le cha", "le cha"),
        ("le chat ", "le chat"),
        ("le\u00a0chat \t", "le chat"),
        (" \u200b", ""),
    ],
)
def test_a_prefix_is_encoded_as_text_is(prefix, begins, tokenizer):
    (piece,) = cut("the cat sees", prefix, tokenizer)
    assert piece.forced == (tokenizer.encode([begins])[0] if begins else ())
    assert forced(piece, tokenizer) == begins


@pytest.mark.parametrize(
    ("line", "prefix", "before", "begins", "after"),
    [
        ("\U0001f600 the cat", "\U0001f600 le", "\U0001f600 ", "le", ""),
        ("\U0001f600 the cat", "\U0001f600", "\U0001f600 ", "", ""),
        ("\U0001f600 the cat", "le", "", "le", ""),
        ("the cat \U0001f600", "le chat \U0001f600", "", "le chat", " \U0001f600"),
        ("the Ольга eat", "la Ольга voit", "", f"la {PLACEHOLDERS[0]} voit", ""),
        ("the cat", "la Ольга", "", "la Ольга", ""),
    ],
)
def test_what_is_carried_over_is_not_translated_twice(
    line, prefix, before, begins, after, tokenizer
):
    (piece,) = cut(line, prefix, tokenizer)
    assert (piece.before, forced(piece, tokenizer), piece.after) == (before, begins, after)


def test_a_line_with_a_prefix_is_whole_where_it_can_be(tokenizer):
    line, trained = "The cat sees. We eat bread.", TrainedLengths(100, 1)
    assert len(cut(line, "", tokenizer, trained=trained)) == 2
    (piece,) = cut(line, "le chat", tokenizer, trained=trained)
    assert piece.ids == tokenizer.encode([line])[0] and forced(piece, tokenizer) == "le chat"
    first, *others = cut(line * 5, "le chat", tokenizer, trained=trained)
    assert forced(first, tokenizer) == "le chat"
    assert others and not any(piece.forced for piece in others)


def test_a_prefix_leaves_room_for_the_end(tokenizer):
    source, word = (len(ids) for ids in tokenizer.encode(["the cat", "le"]))
    longest = source + 1 + CONFIG.decoding.extra_length
    fits = " ".join(["le"] * ((longest - 1) // word))
    assert len(cut("the cat", fits, tokenizer)[0].forced) == longest - 1
    with pytest.raises(UserError, match=f"at most {longest}, .*: shorten it, or raise decoding.ex"):
        cut("the cat", f"{fits} le", tokenizer)
    learned = dataclasses.replace(
        CONFIG, model=TransformerConfig(positions="learned", max_positions=512)
    )
    with pytest.raises(UserError, match=r"end symbol included: shorten it$"):
        cut_to_begin(["the"], ["le " * 300], learned, tokenizer)


@pytest.mark.parametrize("line", ["", " ", "\U0001f600"])
def test_nothing_to_translate_has_nothing_to_begin_with(line, tokenizer):
    assert not any(piece.ids for piece in cut(line, "", tokenizer))
    with pytest.raises(UserError, match="the prefix 'le' is that of a line without words to"):
        cut(line, "le", tokenizer)
