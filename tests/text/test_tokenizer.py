import os
import random
import subprocess
import sys

import pytest
import sentencepiece

from flax_transformer.config import TokenizerConfig
from flax_transformer.data.builtin import generate
from flax_transformer.errors import UserError
from flax_transformer.text.tokenizer import EOS_ID, UNK_ID
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.text.vocabulary_file import load_tokenizer

WORDS = ["the", "cat", "sees", "a", "dog", "house", "über", "dog's", "l'été", "near"]


def sentences(count=400, seed=0):
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=6)) for _ in range(count)]


def train(path, seed=0, text=None, **settings):
    exact = {"vocabulary_size": 320, "normalization": "identity"}
    config = TokenizerConfig(**exact | settings)
    return train_tokenizer(sentences() if text is None else text, config, path, seed)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train(tmp_path_factory.mktemp("vocabulary") / "tokenizer.model")


@pytest.mark.parametrize(
    "text",
    [
        "the cat sees a dog",
        "",
        " ",
        "  two  leading,   three inside, one trailing ",
        "\ttabs\t\r and \x00 control \x01\x7f\x85 characters",
        "lines\u2028and\u2029paragraphs\u00a0\u3000\u200b",
        "never seen: 😀👩‍👩‍👧 مرحبا 漢字 \ufeff \U0010ffff e\u0301",
        "ﬁ ① Å — not normalised",
        "<s> </s> <pad> <unk> <0x41> ⁇",
    ],
)
def test_text_survives(tokenizer, text):
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode([ids]) == [text]
    assert all(UNK_ID < i < tokenizer.vocabulary_size for i in ids)


def test_the_sign_for_a_space_is_the_one_exception(tokenizer):
    assert tokenizer.decode(tokenizer.encode(["a\u2581b"])) == ["a b"]


def test_normalization_is_a_choice(tmp_path):
    folding = train(tmp_path / "nfkc.model", normalization="nfkc")
    assert folding.decode(folding.encode(["ﬁne  ①"])) == ["fine 1"]


def test_batches_keep_their_order(tokenizer):
    texts = [f"{text} {i}" for i, text in enumerate(sentences(300, seed=1))]
    assert tokenizer.encode(texts) == [tokenizer.encode([text])[0] for text in texts]
    assert tokenizer.decode(tokenizer.encode(texts)) == texts
    assert tokenizer.encode([]) == tokenizer.decode([]) == []
    assert tokenizer.decode([[], [EOS_ID], *tokenizer.encode(["dog"])]) == ["", "", "dog"]
    assert tokenizer.decode([[]]) == [""]


def test_decoding_drops_special_symbols_and_mends_bytes(tokenizer):
    (ids,) = tokenizer.encode(["the cat"])
    assert tokenizer.decode([[2, *ids, EOS_ID, 0, 0, UNK_ID]]) == ["the cat"]
    (emoji,) = tokenizer.encode(["😀"])
    assert "\ufffd" in tokenizer.decode([emoji[:-1]])[0]


def test_size_and_file(tmp_path):
    path = tmp_path / "tokenizer.model"
    trained = train(path)
    loaded = load_tokenizer(path)
    assert loaded.vocabulary_size == trained.vocabulary_size == 320
    assert loaded.fingerprint == trained.fingerprint
    assert loaded.encode(["a dog"]) == trained.encode(["a dog"])
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.model"]


def test_sampling_is_reproducible_across_processes(tmp_path):
    settings = {"training_sentences": 50}
    here = train(tmp_path / "here.model", seed=3, **settings)
    script = (
        "import sys; sys.path[:0] = ['tests/text', 'tests'];"
        "from pathlib import Path; import test_tokenizer;"
        f"test_tokenizer.train(Path(r'{tmp_path}') / 'there.model', seed=3, **{settings})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == done.stderr == ""  # SentencePiece is talkative unless silenced.
    assert load_tokenizer(tmp_path / "there.model").fingerprint == here.fingerprint
    assert train(tmp_path / "other.model", seed=4, **settings).fingerprint != here.fingerprint


def test_the_sample_reaches_the_whole_text(tmp_path):
    text = ["aa ab ba"] * 200 + [f"{a}{b} {b}{a}" for a in "xyzuvw" for b in "klmnop"] * 6
    sampled = train(tmp_path / "m", text=text, training_sentences=200, vocabulary_size=300)
    pieces = sampled.encode(["klxyz"])[0]
    assert len(pieces) <= 6, "characters from the end of the text have pieces of their own"


def test_long_lines_are_not_skipped(tmp_path):
    text = [*sentences(), "Ω " * 10_000]  # SentencePiece skips lines of over 4,192 bytes by default
    (ids,) = train(tmp_path / "m", text=text).encode(["Ω"])
    assert len(ids) <= 2


def test_size_must_fit_the_text(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer.vocabulary_size is 9000.*at most \d+") as e:
        train(tmp_path / "m", vocabulary_size=9000)
    largest = int(str(e.value).split("use at most ")[1].split(",")[0])
    assert train(tmp_path / "m", vocabulary_size=largest).vocabulary_size == largest


def test_text_too_short_for_any_vocabulary_needs_more_text(tmp_path):
    """No number is advised that the settings refuse."""
    with pytest.raises(UserError, match=r"enough for 269.*use more text") as raised:
        train(tmp_path / "m", text=["a b", "b a"] * 3)
    assert "at most" not in str(raised.value)
    with pytest.raises(UserError, match="at least 300"):
        TokenizerConfig(vocabulary_size=299)


def test_no_text(tmp_path):
    with pytest.raises(UserError, match="no text"):
        train(tmp_path / "m", text=[])


def test_missing_and_broken_files(tmp_path, tokenizer):
    path = tmp_path / "tokenizer.model"
    with pytest.raises(UserError, match=r"tokenizer\.model cannot be read"):
        load_tokenizer(path)
    whole = tmp_path / "whole.model"
    train(whole)
    model = whole.read_bytes()
    for broken in (b"", b"not a model", model[: len(model) // 2], model[:-200]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"tokenizer\.model is not a vocabulary"):
            load_tokenizer(path)


def damaged(draw, model):
    """`model` with some bits flipped, its end cut off, or some bytes zero."""
    content, start = bytearray(model), draw.randrange(len(model))
    match draw.randrange(4):
        case 0:
            del content[start:]
        case 1:
            end = min(start + draw.choice([1, 4, 64, 512]), len(content))
            content[start:end] = bytes(end - start)
        case _:
            for _ in range(draw.choice([1, 1, 2, 8, 64])):
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


@pytest.mark.parametrize("normalization", ["identity", "nfc"])
def test_whatever_the_damage_it_is_a_vocabulary_or_one_error(tmp_path, normalization):
    """Where the damage shows only in what it does to some character, that is an error then."""
    path = tmp_path / "tokenizer.model"
    text = [side for pair in generate(1500)["train"] for side in pair]
    size = train(path, text=text, vocabulary_size=1200, normalization=normalization).vocabulary_size
    model, draw = path.read_bytes(), random.Random(0)
    texts = ["the cat's l'été", "", "  a  漢字 😀 <0x41> \x00", "ﬁ①Ǻ가ｶﾞ㌀"]
    refused = used = 0
    for _ in range(750):
        path.write_bytes(damaged(draw, model))
        try:
            tokenizer = load_tokenizer(path, size)
            rows = tokenizer.encode(texts) + tokenizer.sample(texts, 0.1, seed=0)
            assert all(UNK_ID < i < size for row in rows for i in row)
            tokenizer.decode([*rows, list(range(size))])
            assert len(tokenizer.pieces(range(size))) == size
            used += 1
        except UserError as error:
            assert "tokenizer.model" in str(error)
            refused += 1
    assert used > 10 and refused > 100


def test_what_is_no_file_is_no_vocabulary(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("folder", "pipe", "zeros"):
        with pytest.raises(UserError, match=f"{name} cannot be read: it is not an ordinary file"):
            load_tokenizer(tmp_path / name)


def test_another_size_is_another_vocabulary(tmp_path):
    train(tmp_path / "tokenizer.model")
    assert load_tokenizer(tmp_path / "tokenizer.model", 320).vocabulary_size == 320
    with pytest.raises(UserError, match=r"tokenizer\.model .*has 320 pieces.*_size is 400"):
        load_tokenizer(tmp_path / "tokenizer.model", 400)


def test_tags_are_symbols_that_text_never_becomes(tmp_path):
    config = TokenizerConfig(vocabulary_size=320)
    text = [f"{sentence} <bt> a<bt>" for sentence in sentences()]
    tagged = train_tokenizer(text, config, tmp_path / "m", 0, ["<bt>", "<web>"])
    assert tagged.vocabulary_size == 320
    ids = [tagged.tag_id("<bt>"), tagged.tag_id("<web>")]
    assert len({*ids, *range(UNK_ID + 1)}) == 2 + UNK_ID + 1
    odd = ["<bt> the cat", "a<bt>", "<bt>", "< b t >", "😀<web>\x00"]
    for rows in (tagged.encode(odd), tagged.sample(odd, 0.0, 0), tagged.sample(odd, 0.5, 1)):
        assert not {*ids} & {token for row in rows for token in row}
        assert tagged.decode(rows) == odd
    (cat,) = tagged.encode(["the cat"])
    assert tagged.decode([[ids[0], *cat]]) == ["the cat"]
    for other in ("<bt2>", "the", "<unk>"):
        with pytest.raises(UserError, match=f"no symbol for data.train's tag {other}"):
            tagged.tag_id(other)


def test_sampled_splittings_differ_spell_the_same_text_and_follow_the_seed(tokenizer):
    texts = sentences(50, seed=3)
    first, again, other = (tokenizer.sample(texts, 0.5, seed) for seed in (7, 7, 8))
    assert first == again != other
    assert tokenizer.decode(first) == texts
    plain = tokenizer.encode(texts)
    assert sum(map(len, first)) > 1.2 * sum(map(len, plain))
    assert tokenizer.encode(texts) == plain


@pytest.mark.parametrize("normalization", ["nfc", "identity", "nfkc", "nmt_nfkc"])
def test_words_one_by_one_make_the_text(tmp_path, normalization):
    trained = train(tmp_path / "m", normalization=normalization)
    whole = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m"))
    draw = random.Random(5)
    alphabet = " \u2581\t\naeéßDog'shtcu<0x41>ﬁ①漢😀\u0301\u200b\u00a0¨"
    odd = ["".join(draw.choices(alphabet, k=draw.randrange(30))) for _ in range(300)]
    texts = [*sentences(100, seed=2), *odd, "<s> </s> <pad> <unk> <0x41> ⁇"]
    assert trained.encode(texts) == whole.encode(texts)
    assert trained.sample(texts, 0.0, 0) == whole.encode(texts)


def test_a_line_without_spaces_is_split_in_time(tokenizer):
    """As in Chinese, where a line is one word to the tokenizer."""
    line = "".join(sentences(400)).replace(" ", "")
    assert len(line) > 8000
    (sampled,) = tokenizer.sample([line], 0.1, seed=0)
    assert tokenizer.decode([sampled]) == [line]
    assert tokenizer.sample([line], 0.0, seed=0) == tokenizer.encode([line])
