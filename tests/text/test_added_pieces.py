"""Pieces that a trained vocabulary gets at its end, and the splits that they leave alone."""

import itertools
import random
from collections import Counter

import pytest
import sentencepiece

from flax_transformer.config import TokenizerConfig
from flax_transformer.text.added_pieces import _runs, add_pieces, learn_pieces
from flax_transformer.text.byte_pairs import merge
from flax_transformer.text.placeholders import PLACEHOLDERS
from flax_transformer.text.tokenizer import SPACE_SIGN, Tokenizer
from flax_transformer.text.tokenizer_training import train_tokenizer

OLD_WORDS = [
    "the",
    "cat",
    "sees",
    "a",
    "dog",
    "house",
    "dog's",
    "l'été",
    "photo",
    "now",
    "3",
    "(a)",
]
NEW_WORDS = [
    "photograph", "photographer", "snowboarding", "dog's", "don't", "3,000", "über", "Москва",
    "москвич", "naïveté", "the", "東京都は", "東京です", "...", "<9>", "(snow)",
]  # fmt: skip
SIZE, ADDED = 320, 40


def sentences(count=300, seed=0, words=NEW_WORDS):
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=8)) for _ in range(count)]


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    config = TokenizerConfig(vocabulary_size=SIZE)
    return train_tokenizer(sentences(words=OLD_WORDS), config, path, 0)


@pytest.fixture(scope="module")
def after(before) -> Tokenizer:
    return Tokenizer(add_pieces(before, learn_pieces(before, sentences(), ADDED).pieces, []))


def ends(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Where in the UTF-8 of a text each of its tokens ends."""
    sizes = [
        1 if i in tokenizer.byte_ids else len(piece.encode())
        for i, piece in zip(ids, tokenizer.pieces(ids), strict=True)
    ]
    return list(itertools.accumulate(sizes))


def test_the_new_text_takes_as_many_tokens_as_the_learning_counted(before):
    learned = learn_pieces(before, sentences(), ADDED)
    after = Tokenizer(add_pieces(before, learned.pieces, []))
    counted = [sum(map(len, each.encode(sentences()))) for each in (before, after)]
    assert counted == [learned.tokens_before, learned.tokens_after]
    assert counted[1] < 0.6 * counted[0]
    assert after.pieces(range(SIZE)) == before.pieces(range(SIZE))
    assert after.pieces(range(SIZE, SIZE + ADDED)) == learned.pieces
    assert after.decode(after.encode(sentences())) == sentences()


def test_each_piece_is_the_one_that_saves_most(before):
    """Against learning that splits all of the text anew for each piece."""
    ids, expected = dict(before.text_pieces), []
    words = Counter(word for text in before.normalize(sentences(30)) for word in text.split(" "))
    for number in range(ADDED):
        saved: Counter[str] = Counter()
        for word, count in words.items():
            for run in _runs(merge(SPACE_SIGN + word, ids, 0.0, lambda: 1.0)):
                for symbol in run:
                    if symbol not in ids:
                        saved[symbol] += count * max(len(symbol.encode()) - 1, 1)
                for pair in itertools.pairwise(run):
                    if ids.keys() >= set(pair):
                        saved["".join(pair)] += count
        expected.append(min(saved, key=lambda piece: (-saved[piece], piece)))
        ids[expected[-1]] = SIZE + number
    assert learn_pieces(before, sentences(30), ADDED).pieces == expected


def test_a_word_is_split_as_before_but_for_neighbours_that_a_new_piece_joins(before, after):
    alphabet = " aeéßDog'shtcuнМоск3,<>photgrapnw東京漢😀"
    draw = random.Random(5)
    odd = ["".join(draw.choices(alphabet, k=draw.randrange(12))) for _ in range(300)]
    texts = sentences(50, 1, OLD_WORDS) + sentences(50, 1) + odd
    words = sorted({word for text in after.normalize(texts) for word in text.split(" ")})
    kept = changed = 0
    for old, new in zip(before.encode(words), after.encode(words), strict=True):
        assert {*ends(after, new)} <= {*ends(before, old)}
        if max(new, default=0) < before.vocabulary_size:
            assert new == old
            kept += 1
        else:
            changed += 1
    assert min(kept, changed) > 50


def test_sentencepiece_and_python_make_the_same_splits(after):
    texts = [*sentences(50, 2), "Снова 東京で! <9> don't", " ".join(PLACEHOLDERS)]
    whole = sentencepiece.SentencePieceProcessor(model_proto=after.model)
    assert after.encode(texts) == whole.encode(texts) == after.sample(texts, 0.0, 0)
    assert all(after.ids_of_piece(piece) == [id] for piece, id in after.text_pieces.items())


def test_pieces_keep_to_one_script_and_to_sixteen_characters(before):
    long = "абвгдежзиклмнопрст"
    text = [*sentences(), *[f"{long} {PLACEHOLDERS[0]}x{PLACEHOLDERS[0]}x a<9> <b>"] * 20]
    pieces = learn_pieces(before, text, 150, tags=["<9>"]).pieces
    assert {"▁photograph", "▁Москва", "▁東京都は", "..."} <= {*pieces}
    assert max(map(len, pieces)) == 16
    for piece in pieces:
        letters = {character.isalpha() for character in piece.removeprefix(SPACE_SIGN)}
        assert len(letters) <= 1, f"{piece} mixes letters with marks"
        assert not {*piece} & {*PLACEHOLDERS} and piece != "<9>"


def test_characters_get_pieces_and_can_be_read(before, after):
    assert before.characters.isdisjoint("東京о") and after.characters.issuperset("東京о")
    assert before.characters < after.characters


def test_what_occurs_once_gets_no_piece(before):
    assert learn_pieces(before, ["Ж"], 5).pieces == []
    assert learn_pieces(before, ["Ж", "Ж"], 5).pieces == ["Ж", "▁Ж"]
    assert learn_pieces(before, [], 5) == ([], 0, 0)


def test_again_and_with_tags_between(before, after):
    """A run that starts from one that has started from another."""
    tagged = Tokenizer(add_pieces(after, [], ["<bt>"]))
    text = ["saxophone saxophonist"] * 20
    learned = learn_pieces(tagged, text, 5).pieces
    again = Tokenizer(add_pieces(tagged, learned, ["<web>"]))
    assert again.pieces(range(SIZE + ADDED + 1)) == tagged.pieces(range(SIZE + ADDED + 1))
    assert [again.tag_id("<bt>"), again.tag_id("<web>")] == [SIZE + ADDED, SIZE + ADDED + 6]
    assert again.encode(sentences()) == after.encode(sentences())
    assert sum(map(len, again.encode(text))) < sum(map(len, after.encode(text)))
    assert again.sample(text, 0.0, 0) == again.encode(text)
