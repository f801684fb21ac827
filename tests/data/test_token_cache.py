import errno
import os
from pathlib import Path

import numpy as np
import pytest

from flax_transformer.data import token_cache, tokenizing
from flax_transformer.data.pairs import PairList
from flax_transformer.data.token_cache import tokenize_pairs
from flax_transformer.data.tokenizing import BpeDropout
from flax_transformer.files import cache_directory
from flax_transformer.files.cache_directory import default_cache_directory
from flax_transformer.text.tokenizer import EOS_ID

PAIRS = [("a bc", "d"), ("", "ef"), ("g", ""), ("hij kl", "m n")]


class Characters:
    """A tokenizer of one id a character that counts how often it is used."""

    has_placeholders = False

    def __init__(self, vocabulary_size=300, fingerprint="characters"):
        self.vocabulary_size = vocabulary_size
        self.fingerprint = fingerprint
        self.calls = 0

    @property
    def target(self):
        return self

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
        drawn = [row[1:] if len(row) > 1 else row for row in side]
        assert [row.tolist() for row in drawn] == 3 * expected(index)
    # A draw of its own for each sample, stretch of the corpus and side.
    draws = {row[0] for side in (tokens.source, tokens.target) for row in side if len(row) > 1}
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


def assert_made_anew(directory, path, whole, why):
    """The cached ids in `path` are not used, but made again."""
    tokenizer = Characters()
    tokens = tokenize(directory, tokenizer)
    assert tokenizer.calls > 0, why
    assert rows(tokens.source) == expected(0) and rows(tokens.target) == expected(1), why
    assert path.read_bytes() == whole, why


@pytest.mark.parametrize("damage", ["empty", "header", "cut", "longer", "mark", "count"])
def test_damaged_file_is_made_again(tmp_path, capsys, damage):
    tokenize(tmp_path, Characters())
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    assert capsys.readouterr().err == ""
    broken = {
        "empty": b"",
        "header": whole[:40],
        "cut": whole[:-2],
        "longer": whole + b"\0\0",
        "mark": b"X" + whole[1:],
        "count": whole[:64] + b"\1" + whole[65:],
    }[damage]
    path.write_bytes(broken)
    assert_made_anew(tmp_path, path, whole, damage)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line and "made anew" in line


def test_no_flipped_bit_is_used(tmp_path):
    tokenize(tmp_path, Characters())
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for bit in np.random.default_rng(0).choice(8 * len(whole), 300, replace=False):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        assert_made_anew(tmp_path, path, whole, f"bit {bit}")


def test_file_under_the_name_of_another_is_not_used(tmp_path):
    tokenize(tmp_path, Characters())
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.unlink()
    tokenize(tmp_path, Characters(), [("x", "y")] * len(PAIRS), fingerprint="other")
    (other,) = tmp_path.iterdir()
    other.rename(path)
    assert_made_anew(tmp_path, path, whole, "renamed")


@pytest.mark.parametrize(
    "change",
    [
        lambda source, target: target.ids.__setitem__(0, 300),  # the first that is none
        lambda source, target: source.lengths.__setitem__(slice(2), [-1, 7]),
        lambda source, target: source.lengths.__setitem__(slice(2), [6, 0]),  # without its EOS
    ],
)
def test_ids_and_rows_that_cannot_be_are_not_used(tmp_path, monkeypatch, change):
    """Whatever wrote them, with a checksum that fits."""
    tokenize(tmp_path, Characters())
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.unlink()

    def wrong(*arguments):
        sides = tokenizing.encode_pairs(*arguments)
        change(sides[0][0], sides[1][0])
        return sides

    with monkeypatch.context() as context:
        context.setattr(token_cache, "encode_pairs", wrong)
        tokenize(tmp_path, Characters())
    assert len(path.read_bytes()) == len(whole)
    assert_made_anew(tmp_path, path, whole, "wrong")


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_is_no_file_is_replaced(tmp_path, kind):
    cache = tmp_path / "cache"
    tokenize(cache, Characters())
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.unlink()
    (tmp_path / "precious").write_bytes(whole)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(tmp_path / "precious")
    assert_made_anew(cache, path, whole, kind)
    assert not path.is_symlink() and (tmp_path / "precious").read_bytes() == whole


def test_a_run_reads_on_what_it_opened_while_the_file_is_replaced(tmp_path):
    """A mapped file that shrank would end the process."""
    first = tokenize(tmp_path, Characters())
    (path,) = tmp_path.iterdir()
    inode = path.stat().st_ino
    (tmp_path / "damaged").write_bytes(b"")
    (tmp_path / "damaged").rename(path)
    tokenize(tmp_path, Characters())
    assert path.stat().st_ino != inode
    assert rows(first.source) == expected(0) and rows(first.target) == expected(1)


def test_interrupted_work_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(token_cache.Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tokenize(tmp_path, Characters())
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_is_removed(tmp_path):
    left = tmp_path / f"old.tokens.{'a' * 32}.partial"
    left.touch()
    os.utime(left, (0, 0))
    tokenize(tmp_path, Characters())
    assert [path.suffix for path in tmp_path.iterdir()] == [".tokens"]


def assert_held_in_memory(directory, capsys, reason):
    """Ids are right, and the user is told once, where nothing can be written."""
    for pairs, name in ((PAIRS, "text"), (PAIRS[:2], "other")):
        tokens = tokenize(directory, Characters(), pairs, name)
        assert rows(tokens.source) == expected(0)[: len(pairs)]
        assert rows(tokens.target) == expected(1)[: len(pairs)]
        assert not tokens.source.values.flags.writeable
    (line,) = capsys.readouterr().err.splitlines()
    assert "memory" in line and reason in line and "XDG_CACHE_HOME" in line


def test_without_a_folder_ids_are_held_in_memory(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert_held_in_memory(tmp_path / "file" / "cache", capsys, f"{tmp_path}/file/cache")


def test_on_a_full_disk_ids_are_held_in_memory(tmp_path, monkeypatch, capsys):
    def fill(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    assert_held_in_memory(tmp_path, capsys, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_ids_are_held_in_memory(monkeypatch, capsys):
    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", unknown)
    assert default_cache_directory() is None
    cache_directory.say_once.cache_clear()
    assert_held_in_memory(default_cache_directory(), capsys, "no home directory")


def test_ids_on_a_disk_that_loses_them_are_held_in_memory(tmp_path, monkeypatch):
    written = token_cache._write

    def lose(path, sides):
        written(path, sides)
        path.write_bytes(b"")

    monkeypatch.setattr(token_cache, "_write", lose)
    tokens = tokenize(tmp_path, Characters())
    assert rows(tokens.source) == expected(0) and rows(tokens.target) == expected(1)


def test_default_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_directory() == tmp_path / "flax_transformer"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_directory() == tmp_path / ".cache" / "flax_transformer"
