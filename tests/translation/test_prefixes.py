"""From a prefix to the tokens that a translation begins with."""

import dataclasses

import numpy as np
import pytest

from flax_transformer.config import Config, DecodingConfig, TokenizerConfig, TransformerConfig
from flax_transformer.errors import UserError
from flax_transformer.text.placeholders import PLACEHOLDERS
from flax_transformer.text.sentences import TrainedLengths
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.translation.long_lines import Piece
from flax_transformer.translation.prefixes import PLACES, cut_to_begin, lead_through
from flax_transformer.translation.required import cut_to_hold

CONFIG = Config(decoding=DecodingConfig(max_source_length=32, extra_length=20))
TEXT = ["the cat sees a red house and we eat bread", "le chat voit la maison rouge", "The We . ! ?"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    return train_tokenizer(TEXT, TokenizerConfig(vocabulary_size=330), path, seed=0)


def cut(line: str, prefix: str, tokenizer, **options) -> list[Piece]:
    neighbours = ["the cat", line, "we eat"], ["", prefix, ""]
    before, pieces, after = cut_to_begin(*neighbours, CONFIG, tokenizer, **options)
    assert not any(each[0].forced or each[0].word for each in (before, after))
    return pieces


def begins(piece: Piece, tokenizer) -> str:
    return (tokenizer.decode([piece.forced])[0] + piece.word.replace("\u2581", " ")).strip()


@pytest.mark.parametrize(
    ("prefix", "finished", "word"),
    [
        ("le cha", "le", "\u2581cha"), ("le chat ", "le chat", ""), ("l", "", "\u2581l"),
        ("le\u00a0chat \t", "le chat", ""), (" ", "", ""), ("le \u0436", "le \u0436", ""),
        ("la " + "e" * 14, "la", "\u2581" + "e" * 14), ("la " + "e" * 15, "la " + "e" * 15, ""),
    ],
)  # fmt: skip
def test_words_are_encoded_as_text_is_but_for_the_last(prefix, finished, word, tokenizer):
    (piece,) = cut("the cat sees the cat", prefix, tokenizer)
    assert [*piece.forced] == tokenizer.encode([finished])[0] and piece.word == word


@pytest.mark.parametrize("word", ["chat", "l", "maison", "eeeeeeeeeeeeee"])
def test_all_ways_to_spell_a_word_lead_through_it(word, tokenizer):
    nexts = np.full((PLACES, tokenizer.vocabulary_size), -1, np.int8)
    lead_through(f"\u2581{word}", tokenizer, nexts)
    for seed in range(20):
        for text in (word, f"{word} chat", f"{word}ee"):
            (ids,) = tokenizer.sample([text], 0.5, seed)
            place = count = 1
            while place := nexts[place, ids[count - 1]]:
                assert place > 0
                count += 1
            assert tokenizer.decode([ids[:count]])[0].startswith(word)
            assert len(tokenizer.decode([ids[: count - 1]])[0]) < len(word)
    for wrong in ("voit", word[:-1] + "v"):
        place = 1
        for token in tokenizer.encode([wrong])[0]:
            place = nexts[place, token] if place > 0 else place
        assert place != 0


@pytest.mark.parametrize(
    ("line", "prefix", "before", "text", "after"),
    [
        ("\U0001f600 the cat", "\U0001f600 le", "\U0001f600 ", "le", ""),
        ("\U0001f600 the cat", "\U0001f600", "\U0001f600 ", "", ""),
        ("\U0001f600 the cat", "le", "", "le", ""),
        ("the cat \U0001f600", "le chat \U0001f600", "", "le chat", " \U0001f600"),
        ("the Ольга eat", "la Ольга voit", "", f"la {PLACEHOLDERS[0]} voit", ""),
        ("the cat", "la Ольга", "", "la Ольга", ""),
    ],
)
def test_what_is_carried_over_is_not_translated_twice(line, prefix, before, text, after, tokenizer):
    (piece,) = cut(line, prefix, tokenizer)
    assert (piece.before, begins(piece, tokenizer), piece.after) == (before, text, after)


def test_a_line_with_a_prefix_is_whole_where_it_can_be(tokenizer):
    line, trained = "The cat sees. We eat bread.", TrainedLengths(100, 1)
    assert len(cut(line, "", tokenizer, trained=trained)) == 2
    (piece,) = cut(line, "le chat", tokenizer, trained=trained)
    assert piece.ids == tokenizer.encode([line])[0] and begins(piece, tokenizer) == "le chat"
    first, *others = cut(line * 5, "le chat", tokenizer, trained=trained)
    assert begins(first, tokenizer) == "le chat"
    assert others and not any(piece.forced or piece.word for piece in others)


def test_a_prefix_leaves_room_for_the_end(tokenizer):
    source, word = (len(ids) for ids in tokenizer.encode(["the cat", "le"]))
    longest = source + 1 + CONFIG.decoding.extra_length
    fits = " ".join(["le"] * ((longest - 1) // word))
    assert len(cut("the cat", f"{fits} ", tokenizer)[0].forced) == longest - 1
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


TAGGED = ["<bt>", "<news>"]


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    return train_tokenizer(TEXT, TokenizerConfig(vocabulary_size=332), path, seed=0, tags=TAGGED)


def test_a_tag_stands_before_every_piece_of_its_line_and_of_no_other(tagged):
    long = "the cat sees a red house. " * 12
    lines, tags = ["we eat", long, "we eat", "", "the cat"], ["<bt>", "<news>", "", "<bt>", ""]
    prefixes = ["le chat ", "", "", "", "la"]
    plain = cut_to_begin(lines, prefixes, CONFIG, tagged)
    found = cut_to_begin(lines, prefixes, CONFIG, tagged, tags=tags)
    assert list(tagged.tags) == TAGGED and [*map(len, found[2:])] == [1, 0, 1]
    assert found[2:] == plain[2:]
    (one,) = found[0]
    assert one == plain[0][0]._replace(ids=[tagged.tag_id("<bt>"), *plain[0][0].ids])
    assert len(found[1]) > 2
    for piece in found[1]:
        assert piece.ids[0] == tagged.tag_id("<news>") and 1 < len(piece.ids) < 32
        assert not {*tagged.tags.values()}.intersection(piece.ids[1:])
    joined = " ".join(tagged.decode([piece.ids for piece in found[1]]))
    assert joined == long.strip()


def test_a_tag_takes_a_place_of_the_longest_piece(tagged):
    word = next(word for word in TEXT[1].split() if len(tagged.encode([word])[0]) == 1)
    line = " ".join([word] * 31)
    (plain,), (found,) = (
        cut_to_begin([line], None, CONFIG, tagged, tags=[t]) for t in ("", "<bt>")
    )
    assert [*map(len, (piece.ids for piece in plain))] == [31]
    assert len(found) == 2 and all(len(piece.ids) <= 31 for piece in found)


def test_a_line_with_a_prefix_and_a_tag_is_not_split(tagged):
    line = "The cat. We eat. The cat. We eat."
    trained = TrainedLengths(tokens=8, sentences=1)
    for prefix, count in (("", 4), ("le ", 1)):
        (pieces,) = cut_to_begin([line], [prefix], CONFIG, tagged, trained, ["<bt>"])
        assert len(pieces) == count
        assert all(piece.ids[0] == tagged.tag_id("<bt>") for piece in pieces)


def test_a_line_with_required_phrases_keeps_its_tag(tagged):
    lines, tags = ["the cat", "The cat. We eat."], ["", "<bt>"]
    trained = TrainedLengths(tokens=8, sentences=1)
    (free,), (piece,) = cut_to_hold(lines, None, [[], ["le"]], CONFIG, tagged, trained, tags)
    assert piece.ids[0] == tagged.tag_id("<bt>") and piece.required == tagged.encode(["le"])
    assert not free.required


def test_unknown_tags_are_refused_by_what_there_is(tagged, tokenizer):
    for tag in ("<BT>", "</s>", "the", "bt"):
        with pytest.raises(UserError, match=rf"the tag '{tag}' is not .* has <bt>, <news>: choose"):
            cut_to_begin(["the cat"], None, CONFIG, tagged, tags=[tag])
    with pytest.raises(UserError, match="which has none: leave it out"):
        cut_to_begin(["the cat"], None, CONFIG, tokenizer, tags=["<bt>"])
