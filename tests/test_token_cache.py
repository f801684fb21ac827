import numpy as np
import pytest

from flax_transformer.cache_directory import default_cache_directory
from flax_transformer.config_error import ConfigError
from flax_transformer.data import token_cache, tokenizing
from flax_transformer.data.pairs import PairList
from flax_transformer.data.token_cache import tokenize_pairs
from flax_transformer.data.tokenizing import BpeDropout
from flax_transformer.tokenizer import EOS_ID

PAIRS = [("a bc", "d"), ("", "ef"), ("g", ""), ("hij kl", "m n")]


class Characters:
    """A tokenizer of one id a character that counts how often it is used."""

    def __init__(self, vocabulary_size=300, fingerprint="characters"):
        self.vocabulary_size = vocabulary_size
        self.fingerprint = fingerprint
        self.calls = 0

    def encode(self, texts):
        self.calls += 1
        return [[ord(c) for c in text] for text in texts]

    def sample(self, texts, dropout, seed):
        return [[seed % (1 << 17), *ids] for ids in self.encode(texts)]


def tokenize(directory, tokenizer, pairs=PAIRS, fingerprint="text"):
    return tokenize_pairs(PairList(pairs), tokenizer, fingerprint, directory, "tokens")


def rows(side):
    return [row.tolist() for row in side]


def expected(index):
    return [[ord(c) for c in pair[index]] + [EOS_ID] for pair in PAIRS]


@pytest.mark.parametrize("pairs_at_a_time", [1, 3, 20_000])
def test_rows_end_in_eos(tmp_path, monkeypatch, pairs_at_a_time):
    monkeypatch.setattr(tokenizing, "_PAIRS_AT_A_TIME", pairs_at_a_time)
    tokens = tokenize(tmp_path, Characters())
    assert len(tokens) == len(tokens.source) == len(PAIRS)
    assert rows(tokens.source) == expected(0)
    assert rows(tokens.target) == expected(1)
    assert tokens.source.lengths.tolist() == [5, 1, 2, 7]
    assert tokens.source[-1].tolist() == expected(0)[-1]
    with pytest.raises(IndexError):
        tokens.source[4]


def test_with_dropout_every_pair_is_split_several_times(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "_PAIRS_AT_A_TIME", 3)
    tokenizer = Characters(vocabulary_size=1 << 17)

    def sampled(dropout):
        return tokenize_pairs(PairList(PAIRS), tokenizer, "text", tmp_path, "tokens", dropout)

    tokens = sampled(BpeDropout(0.1, samples=3, seed=0))
    assert len(tokens) == 3 * len(PAIRS)
    for index, side in enumerate((tokens.source, tokens.target)):
        assert [row[1:].tolist() for row in side] == 3 * expected(index)
    # A draw of its own for each sample, stretch of the corpus and side.
    draws = {row[0] for side in (tokens.source, tokens.target) for row in side}
    assert len(draws) == 3 * 2 * 2
    # Neither the plain ids nor those of another draw come from this cache.
    calls = tokenizer.calls
    assert (
        sampled(BpeDropout(0.1, samples=3, seed=0)).source[0].tolist() == tokens.source[0].tolist()
    )
    assert tokenizer.calls == calls
    assert sampled(BpeDropout(0.1, samples=3, seed=1)).source[0][0] != tokens.source[0][0]
    assert rows(tokenize(tmp_path, tokenizer).source) == expected(0)


@pytest.mark.parametrize(("vocabulary_size", "dtype"), [(65_536, np.uint16), (65_537, np.int32)])
def test_narrowest_type(tmp_path, vocabulary_size, dtype):
    tokens = tokenize(tmp_path, Characters(vocabulary_size), [("\uffff", "a")])
    assert tokens.source.values.dtype == dtype
    assert tokens.source[0].tolist() == [65_535, EOS_ID]


def test_second_use_reads_the_file(tmp_path):
    tokenizer = Characters()
    first = tokenize(tmp_path / "new" / "folder", tokenizer)
    calls = tokenizer.calls
    second = tokenize(tmp_path / "new" / "folder", tokenizer)
    assert tokenizer.calls == calls
    assert rows(second.source) == rows(first.source)
    assert rows(second.target) == rows(first.target)
    assert not second.source.values.flags.writeable


def test_other_text_or_vocabulary_is_not_taken_for_it(tmp_path):
    tokenize(tmp_path, Characters())
    for tokenizer, fingerprint in ((Characters(), "other"), (Characters(fingerprint="x"), "text")):
        tokenize(tmp_path, tokenizer, fingerprint=fingerprint)
        assert tokenizer.calls > 0
    assert len(list(tmp_path.iterdir())) == 3
    assert len(tokenize(tmp_path, Characters(), PAIRS[:2])) == 2


@pytest.mark.parametrize("damage", ["empty", "header", "cut", "longer", "mark", "count"])
def test_damaged_file_is_made_again(tmp_path, damage):
    tokenize(tmp_path, Characters())
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    broken = {
        "empty": b"",
        "header": whole[:40],
        "cut": whole[:-2],
        "longer": whole + b"\0\0",
        "mark": b"X" + whole[1:],
        "count": whole[:64] + b"\1" + whole[65:],
    }[damage]
    path.write_bytes(broken)
    tokenizer = Characters()
    tokens = tokenize(tmp_path, tokenizer)
    assert tokenizer.calls > 0
    assert rows(tokens.target) == expected(1)
    assert path.read_bytes() == whole


def test_interrupted_work_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(token_cache.Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tokenize(tmp_path, Characters())
    assert list(tmp_path.iterdir()) == []


def test_unwritable_directory_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    tokenizer = Characters()
    with pytest.raises(ConfigError, match=r"file/cache cannot be written.*XDG_CACHE_HOME"):
        tokenize(tmp_path / "file" / "cache", tokenizer)
    assert tokenizer.calls == 0


def test_full_or_protected_directory_is_found_before_the_work(tmp_path, monkeypatch):
    def refuse(**arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(token_cache.tempfile, "TemporaryFile", refuse)
    tokenizer = Characters()
    with pytest.raises(ConfigError, match=r"cannot be written \(Permission denied\)"):
        tokenize(tmp_path, tokenizer)
    assert tokenizer.calls == 0


def test_default_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_directory() == tmp_path / "flax_transformer"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_directory() == tmp_path / ".cache" / "flax_transformer"
