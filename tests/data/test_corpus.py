import gzip
import lzma
import shutil

import pytest

from flax_transformer.config import Builtin, TextFiles
from flax_transformer.data import text_files
from flax_transformer.data.corpus import open_corpus
from flax_transformer.data.pairs import Part
from flax_transformer.errors import UserError

COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


def write(directory, name, content, compression=""):
    data = content if isinstance(content, bytes) else content.encode()
    (directory / (name + compression)).write_bytes(COMPRESSIONS[compression](data))


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "valid", "test"):
        write(tmp_path, f"{split}.en", f"one {split}\ntwo\n")
        write(tmp_path, f"{split}.de", f"eins {split}\nzwei\n")
    return tmp_path


def corpus(folder, **settings):
    fields = {"directory": str(folder), "source_language": "en", "target_language": "de"}
    return open_corpus(TextFiles(**fields | settings))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_aligned_files(folder, compression):
    for language, word in (("en", "one"), ("de", "eins")):
        (folder / f"train.{language}").unlink()
        write(folder, f"train.{language}", f"{word}\n{word} 2\n{word} 3", compression)
    train = corpus(folder).split("train")
    assert list(train) == [("one", "eins"), ("one 2", "eins 2"), ("one 3", "eins 3")]
    assert train[1:] == list(train)[1:]
    assert train[-1] == ("one 3", "eins 3")
    with pytest.raises(IndexError):
        train[3]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tab_separated(folder, compression):
    (folder / "train.en").unlink()
    text = "Go.\tGeh.\tCC-BY 2.0\tmore\r\nHi.\tHallo.\r\n\tleer\nlast\t"
    write(folder, "train.tsv", text, compression)
    expected = [("Go.", "Geh."), ("Hi.", "Hallo."), ("", "leer"), ("last", "")]
    assert list(corpus(folder).split("train")) == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_tab_separated_with_a_byte_order_mark(folder, encoding):
    (folder / "train.en").unlink()
    write(folder, "train.tsv", "Go.\tGeh.\r\nZoé\tBär".encode(encoding))
    write(folder, "more.tsv", "Hi.\tHallo.\n".encode(encoding), ".gz")
    pairs = [("Go.", "Geh."), ("Zoé", "Bär"), ("Hi.", "Hallo.")]
    assert list(corpus(folder, train=("train", "more")).split("train")) == pairs


def test_tab_separated_line_without_a_tab(folder):
    (folder / "train.en").unlink()
    for text, line in (("a\tb\nc d\ne\tf\n", 2), ("a\tb\nc", 2), ("a\n", 1), ("a\tb\n\nc\td", 2)):
        write(folder, "train.tsv", text)
        with pytest.raises(UserError, match=rf"train\.tsv line {line} has no tab"):
            corpus(folder).split("train")


def test_only_newlines_end_lines(folder):
    odd = ["a\u2028b", "c\u0085d\u2029", "\x0be\x0cf\x1c", "g\rh", "i"]
    write(folder, "train.en", "\ufeff" + "\r\n".join(odd) + "\r\n")
    write(folder, "train.de", "\n".join(odd))
    assert list(corpus(folder).split("train")) == [(text, text) for text in odd]


def test_empty_sides_keep_their_lines(folder):
    write(folder, "test.en", "a\n\nc\n\n")
    write(folder, "test.de", "\nb\r\nc\n\n")
    pairs = [("a", ""), ("", "b"), ("c", "c"), ("", "")]
    assert list(corpus(folder).split("test")) == pairs


@pytest.mark.parametrize("text", ["", "\n", "\n\n\n", " \n\t\n", "a\n\n"])
def test_no_text(folder, text):
    write(folder, "train.en", text)
    write(folder, "train.de", text if text != "a\n\n" else "\nb\n")
    with pytest.raises(UserError, match="train split has no pair with text on both sides"):
        corpus(folder).split("train")


def test_several_training_files(folder):
    write(folder, "more.tsv", "three\tdrei\nfour\tvier", ".xz")
    both = corpus(folder, train=("train", "more", "test"))
    train = both.split("train")
    assert [source for source, _ in train] == [
        "one train", "two", "three", "four", "one test", "two",
    ]  # fmt: skip
    assert [train[i] for i in range(6)] == list(train)


def test_training_files_have_weights_and_tags(folder):
    write(folder, "more.tsv", "three\tdrei\nfour\tvier\nfive\tfünf")
    both = corpus(folder, train=("train,weight=3", "more,tag=<bt>"))
    train = both.split("train")
    assert train.parts == (Part("train", 2, 3), Part("more", 3, 1, "<bt>"))
    assert train[2] == ("three", "drei"), "a tag is no part of the text"
    plain = corpus(folder, train=("train", "more"))
    assert plain.fingerprint("train") == both.fingerprint("train")
    assert both.split("validation").parts == (Part("all", 2),)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("more,weight=0", "'more' with weight 0, .* use 1"),
        ("more,weight=-2", "'more' with weight -2"),
        ("more,weight=0.5", "whole number.* give the others 2"),
        ("more,weight", "whole number"),
        ("more,wieght=2", r"is written NAME, NAME,weight=2 or NAME,tag=<bt>"),
        ("more,tag=<a>,tag=<b>", "each option once"),
        (",tag=<bt>", "is written NAME"),
        ("more,tag=bt", "tag 'bt': write it in angle brackets"),
        ("more,tag=", "tag '': write it in angle brackets"),
        ("more,tag=<b t>", "without spaces"),
        ("more,tag=<s>", "<s>, which is a special symbol"),
        ("more,tag=<0x41>", "<0x41>, which is a special symbol"),
        ("mroe,tag=<bt>", "data.train names 'mroe', but .* holds neither"),
    ],
)
def test_wrong_training_files(folder, files, message):
    with pytest.raises(UserError, match=message):
        corpus(folder, train=("train", files))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_tsv_that_names_its_languages_serves_both_directions(folder, compression):
    (folder / "train.en").unlink()
    write(folder, "train.en-de.tsv", "Go.\tGeh.\tCC-BY\r\n\tleer\nHi.\tHallo.", compression)
    forward = corpus(folder)
    backward = corpus(folder, source_language="de", target_language="en")
    pairs = [("Go.", "Geh."), ("", "leer"), ("Hi.", "Hallo.")]
    assert list(forward.split("train")) == pairs
    assert list(backward.split("train")) == [(target, source) for source, target in pairs]
    assert forward.fingerprint("train") != backward.fingerprint("train")
    write(folder, "train.en-de.tsv", "Go.\tGeh.\nHi. Hallo.", compression)
    with pytest.raises(UserError, match=rf"train\.en-de\.tsv{compression} line 2 has no tab"):
        corpus(folder, source_language="de", target_language="en").split("train")


def test_names_and_description(folder):
    write(folder, "news.fr.en", "a\n" * 1200)
    write(folder, "news.fr.de", "b\n" * 1200)
    texts = corpus(folder, test=("test", "news.fr"))
    assert texts.test_splits == ("test", "news.fr")
    assert texts.describe() == (
        f"Text files in {folder}, en -> de: 2 training pairs, 2 validation, 2 test, 1,200 news.fr"
    )
    with pytest.raises(UserError, match="no split 'valid', only train, validation, test"):
        texts.split("valid")


def test_text_is_read_when_asked_for(folder):
    write(folder, "train.en", b"\xff")
    texts = corpus(folder)
    assert len(texts.split("test")) == 2
    shutil.rmtree(folder)
    assert len(texts.split("test")) == 2
    with pytest.raises(UserError, match=r"valid\.en cannot be read: No such file"):
        texts.split("validation")


def test_fingerprint_is_of_the_content(folder):
    before = corpus(folder)
    original = before.fingerprint("train")
    seen = set()
    assert len({before.fingerprint(name) for name in ("train", "validation", "test")}) == 3
    reverse = corpus(folder, source_language="de", target_language="en")
    assert reverse.fingerprint("train") != original
    for language in ("en", "de"):
        content = (folder / f"train.{language}").read_bytes()
        (folder / f"train.{language}").unlink()
        write(folder, f"train.{language}", content, ".gz")
    assert corpus(folder).fingerprint("train") == original
    for source, target in (("ab", "c"), ("a", "bc")):
        write(folder, "valid.en", source)
        write(folder, "valid.de", target)
        seen.add(corpus(folder).fingerprint("validation"))
    assert len(seen) == 2, "what moves from one side to the other counts"
    write(folder, "train.de", "eins train\nzwei!\n")
    assert corpus(folder).fingerprint("train") != original
    assert before.fingerprint("train") == original


def test_missing_files(folder):
    with pytest.raises(UserError, match=r"data\.directory is .*nowhere, which is not a folder"):
        corpus(folder / "nowhere")
    with pytest.raises(UserError, match=r"data\.train names 'big', .*big\.en .*big\.tsv.*"):
        corpus(folder, train=("train", "big"))
    (folder / "valid.de").unlink()
    message = (
        r"data\.validation names 'valid', but .* holds neither both of valid\.en and valid\.de "
        r"nor valid\.en-de\.tsv, valid\.de-en\.tsv or valid\.tsv .* "
        r"It holds: test\.de, test\.en, train\.de, train\.en, valid\.en$"
    )
    with pytest.raises(UserError, match=message):
        corpus(folder)
    with pytest.raises(UserError, match=r"data\.test names 'train'"):
        corpus(folder, test=("train",))
    with pytest.raises(UserError, match=r"data\.train names no files"):
        corpus(folder, train=())


def test_files_out_of_step(folder):
    write(folder, "train.de", "eins\nzwei\ndrei")
    with pytest.raises(UserError, match=r"train\.en has 2 lines, .*train\.de has 3 lines"):
        corpus(folder).split("train")


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("lines", [4, 100_000])
def test_not_utf8(folder, compression, lines):
    (folder / "train.de").unlink()
    content = "ä\n".encode() * lines + "grün\nx\n".encode("latin-1")
    write(folder, "train.de", content, compression)
    message = rf"train\.de{compression}.* line {lines + 1} is not UTF-8 .*0xfc"
    with pytest.raises(UserError, match=message):
        corpus(folder).split("train")


@pytest.mark.parametrize("compression", [".gz", ".xz"])
def test_damaged_archives(folder, compression):
    whole = COMPRESSIONS[compression](b"eins\nzwei\n" * 1000)
    (folder / "train.de").unlink()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    garbage = whole[:12] + b"\xff" * 50
    for broken in (whole[:-20], whole[:-6], whole[:4], flipped, garbage):
        (folder / f"train.de{compression}").write_bytes(broken)
        with pytest.raises(UserError, match=rf"train\.de{compression} is cut short or damaged"):
            corpus(folder).split("train")


def test_text_that_does_not_fit_into_memory(folder, monkeypatch):
    def read_text(blocks, name):
        yield "one"
        raise MemoryError

    monkeypatch.setattr(text_files, "read_text", read_text)
    with pytest.raises(UserError, match=r"train\.en does not fit into memory: .* smaller files"):
        corpus(folder).split("train")


def test_builtin():
    builtin = open_corpus(Builtin(num_pairs=300))
    assert builtin.test_splits == ("test", "test_compositional")
    assert len(builtin.split("train")) == 300
    assert builtin.describe().startswith("Built-in grammar, en -> fr: 300 training pairs, ")
    assert open_corpus(Builtin(num_pairs=300)).fingerprint("train") == builtin.fingerprint("train")
    assert builtin.fingerprint("train") != builtin.fingerprint("validation")
    source, target = builtin.split("train")[-1]
    assert isinstance(source, str) and isinstance(target, str)


def test_files_in_folders_below_the_directory(folder):
    (folder / "news").mkdir()
    write(folder, "news/2014.en", "one\n")
    write(folder, "news/2014.de", "eins\n")
    texts = corpus(folder, train=("train", "news/2014,weight=2"), test=("news/2014",))
    assert list(texts.split("news/2014")) == [("one", "eins")]
    assert len(texts.split("train")) == 3


@pytest.mark.parametrize("directory", ["n" * 300, "~nobody-of-this-name/corpus", "/proc/1/fd/x"])
def test_a_directory_that_cannot_be_one(directory):
    with pytest.raises(UserError, match=r"data\.directory is .*, which is not a folder"):
        corpus(directory)


def test_the_longest_names_can_be_looked_for(folder):
    languages = {"source_language": "s" * 30, "target_language": "t" * 30}
    with pytest.raises(UserError, match=r"data\.train names 'nnn.*holds neither"):
        corpus(folder, train=("n" * 180,), **languages)
