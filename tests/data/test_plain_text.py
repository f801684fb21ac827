"""Text is recognised by its first bytes, the same wherever it comes in: as a file of a corpus or of
evaluate.py, which is read whole, and as the input of translate.py, which is a stream."""

import bz2
import codecs
import gzip
import io
import lzma
import os
import tarfile
import threading
import tracemalloc
import zipfile
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from flax_transformer.data.plain_text import read_text
from flax_transformer.data.text_files import TextPairs
from flax_transformer.errors import UserError
from flax_transformer.translation.line_reader import LineReader

LINES = ["Größe", "", "l'été 🙂 上", "\u2028x\u0a0a", "last"]
TEXT = "\n".join(LINES) + "\n"
COMPRESSIONS = {"gzip": gzip.compress, "xz": lzma.compress}
ENCODINGS = {
    "utf-8-sig": "utf-8-sig",
    "UTF-16LE": codecs.BOM_UTF16_LE,
    "UTF-16BE": codecs.BOM_UTF16_BE,
    "UTF-32LE": codecs.BOM_UTF32_LE,
    "UTF-32BE": codecs.BOM_UTF32_BE,
}


def whole(path: Path) -> list[str]:
    return [source for source, _ in TextPairs([(path, path)])]


def streamed(path: Path) -> list[str]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return [line for chunk in LineReader(descriptor, str(path)).chunks() for line in chunk]
    finally:
        os.close(descriptor)


def piped(path: Path) -> list[str]:
    """In small pieces at first, as from a slow program."""
    source, sink = os.pipe()

    def write():
        content = path.read_bytes()
        with open(sink, "wb", buffering=0) as file, suppress(BrokenPipeError):
            for start in range(0, 300, 3):
                file.write(content[start : start + 3])
            file.write(content[300:])

    threading.Thread(target=write, daemon=True).start()
    try:
        return [line for chunk in LineReader(source, str(path)).chunks() for line in chunk]
    finally:
        os.close(source)


@pytest.fixture(params=[whole, streamed, piped])
def read(request, tmp_path):
    """The lines of a file with these bytes; its name says nothing."""

    def read(content: bytes, name: str = "text.en") -> list[str]:
        path = tmp_path / name
        path.write_bytes(content)
        return request.param(path)

    return read


def marked(encoding: str, text: str = TEXT) -> bytes:
    mark = ENCODINGS[encoding]
    return text.encode(mark) if isinstance(mark, str) else mark + text.encode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("compression", [None, *COMPRESSIONS])
def test_text_is_read_as_what_it_is(read, encoding, compression):
    content = marked(encoding)
    assert read(COMPRESSIONS[compression](content) if compression else content) == LINES


@pytest.mark.parametrize("name", ["text.gz", "text.xz"])
def test_the_name_does_not_count(read, name):
    assert read(TEXT.encode(), name) == LINES
    assert read(gzip.compress(TEXT.encode()), name) == LINES


@pytest.mark.parametrize("compression", COMPRESSIONS.values())
def test_archives_that_follow_one_another(read, compression):
    parts = [marked("utf-8-sig"), b"", marked("utf-8-sig", "two\r\n"), b"end"]
    assert read(b"".join(map(compression, parts))) == [*LINES, "two", "end"]


def test_files_that_were_joined_keep_no_byte_order_mark(read):
    assert read(marked("utf-8-sig") + marked("utf-8-sig", "a\n\n") + b"b") == [*LINES, "a", "", "b"]
    assert read(marked("UTF-16LE") + marked("UTF-16LE", "a\r\n") + marked("UTF-16LE", "b")) == [
        *LINES, "a", "b",
    ]  # fmt: skip
    assert read("a\ufeffb\n".encode()) == ["a\ufeffb"]


def test_nothing_but_a_byte_order_mark(read):
    assert [read(content) for content in (b"", codecs.BOM_UTF8, codecs.BOM_UTF16_BE)] == [[]] * 3


@pytest.mark.parametrize(
    ("text", "lines"),
    [("a\r\nb\r\n", ["a", "b"]), ("a\r\nb", ["a", "b"]), ("a\r", ["a"]), ("a\rb\n", ["a\rb"])],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_ends_of_lines(read, text, lines, encoding):
    assert read(text.encode(encoding)) == lines


@pytest.mark.parametrize("count", [1, 40_000])
def test_carriage_returns_alone_end_no_lines(read, count):
    message = r"text\.en has no line feeds, only carriage returns: convert it, .* tr '\\r' '\\n'$"
    text = "a b\r" * 10 * count + "c"
    with pytest.raises(UserError, match=message):
        read(text.encode())


def zipped() -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("text", TEXT)
    return file.getvalue()


def tarred() -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w") as archive:
        archive.addfile(tarfile.TarInfo("text"), io.BytesIO())
    return file.getvalue()


OTHERS = {
    "bzip2": (bz2.compress(TEXT.encode()), r"is compressed with bzip2: .* bzip2 -d"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04\x58\x11", r"is compressed with zstd: .* zstd -d"),
    "lz4": (b"\x04\x22\x4d\x18\x64\x40\xa7", r"is compressed with lz4: .* lz4 -d"),
    "compress": (b"\x1f\x9d\x90\x61\xe8", r"is compressed with compress: .* uncompress"),
    "zip": (zipped(), r"is a zip archive: .* unzip"),
    "tar": (tarred(), r"is a tar archive: .* tar -xf"),
    "tar.gz": (gzip.compress(tarred()), r"is a tar archive: .* tar -xf"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", r"is a 7z archive: .* 7z x"),
    "rar": (b"Rar!\x1a\x07\x01\0", r"is a RAR archive: .* unrar x"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", r"is a PDF document: .* pdftotext"),
    "doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", r"is an Office document: "),
    "gz.gz": (gzip.compress(gzip.compress(b"a")), r"is compressed twice: decompress it once"),
    "xz.gz": (gzip.compress(lzma.compress(b"a")), r"is compressed twice: decompress it once"),
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", r"line 1 is not UTF-8 .*, nor other text: "),
    # Through a pipe the first bytes may come alone.
    "numbers": (
        bytes(range(256)) * 20,
        r"line (1 holds a NUL|2 is not UTF-8 .*0x80\), nor other text: )",
    ),
    "no NUL": (b"\xff" + bytes(range(1, 256)) * 20, r"line 1 is not UTF-8 .*, nor other text: "),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_text_is_named(read, kind):
    content, message = OTHERS[kind]
    with pytest.raises(UserError, match=rf"text\.en( \(decompressed\))? {message}") as error:
        read(content)
    assert "LATIN1" not in str(error.value)


@pytest.mark.parametrize("length", range(1, 16))
def test_what_comes_in_pieces_is_judged_as_a_whole(length):
    """A PNG's first "line" alone, which a slow program writes first, could be text."""
    content, message = OTHERS["png"]
    pieces = [content[start : start + length] for start in range(0, len(content), length)]
    with pytest.raises(UserError, match=f"a pipe {message}"):
        list(read_text(pieces, "a pipe"))


RUSSIAN, HINDI = "Она читает газету.\nРано утром", "वह अखबार पढ़ती है।\nसुबह"
CHINESE = "在桌子上，一本书。\n好 的\n" * 50


@pytest.mark.parametrize(
    "text",
    ["a b\n", TEXT[:8] * 30, RUSSIAN, HINDI, CHINESE, CHINESE * 99],
    ids=["short", "german", "russian", "hindi", "chinese", "more than a block"],
)
@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"])
def test_utf16_without_a_mark_is_named(tmp_path, text, encoding):
    path = tmp_path / "text.en"
    path.write_bytes(text.encode(encoding))
    for door in (whole, streamed):
        with pytest.raises(UserError, match=f"is {encoding} .* iconv -f {encoding} -t UTF-8$"):
            door(path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"one\ntwo\0\nthree\n", 2),
        (b"one\n\0\0\0\0", 2),
        (b"one\ntwo\n" + bytes(100_000), 3),
        (b"one\n" * 50_000 + bytes(4096) + b"more\n", 50_001),
        (TEXT.encode() + b"\0", 6),
        (gzip.compress(b"one\n\0\n", mtime=0), 2),
        (marked("UTF-16BE", "one\ntwo\n\0\n"), 3),
        (bytes(1 << 21), 1),
    ],
    ids=["inside", "end", "long", "later", "alone", "gzip", "utf-16", "nothing else"],
)
def test_nuls_are_no_text(tmp_path, content, line):
    path = tmp_path / "text.en"
    path.write_bytes(content)
    message = rf" line {line} holds a NUL \(byte 0x00\), .* again, .* tr -d '\\0'$"
    for door in (whole, streamed):
        with pytest.raises(UserError, match=message):
            door(path)


def test_what_never_ends_is_left_at_once(tmp_path):
    for door in (whole, streamed):
        with pytest.raises(UserError, match="/dev/zero line 1 holds a NUL"):
            door(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("grün\n".encode("latin-1"), r"line 1 .*0xfc.* iconv -f LATIN1 -t UTF-8$"),
        ("a\ncafé".encode("latin-1"), r"line 2 .*0xe9.* iconv -f LATIN1 -t UTF-8$"),
        ("it’s\n".encode("cp1252"), r"line 1 .*0x92.* iconv -f WINDOWS-1252 -t UTF-8$"),
        ("ü\n".encode() * 40_000 + b"gr\xfcn\n", r"line 40001 .*0xfc.* iconv -c -f UTF-8 "),
        ("ü\nü".encode()[:-1], r"line 2 .*0xc3.* iconv -c -f UTF-8 -t UTF-8$"),
        (gzip.compress("grün".encode("latin-1"), mtime=0), r"\(decompressed\) line 1 .* LATIN1 "),
        (marked("UTF-16LE", "a\nb\n") + b"\x00\xdc\n\0", r"line 3 is not UTF-16LE"),
        (marked("UTF-16LE", "a\nb\n") + b"c", r"line 3 is not UTF-16LE.* cut short or damaged"),
        (marked("UTF-32BE", "a\nb\n") + b"\xff" * 4, r"line 3 is not UTF-32BE"),
    ],
    ids=["latin", "end", "windows", "one byte", "cut", "compressed", "surrogate", "odd", "utf-32"],
)
def test_advice_is_for_what_the_bytes_are(read, content, message):
    with pytest.raises(UserError, match=rf"text\.en {message}"):
        read(content)


@pytest.mark.parametrize("compression", COMPRESSIONS.values())
def test_lines_before_the_damage_come_out(tmp_path, compression):
    # Of random text, so that the archive has some length.
    lines = [os.urandom(40).hex() for _ in range(5000)]
    archive = compression("".join(line + "\n" for line in lines).encode())
    (tmp_path / "text").write_bytes(archive[: len(archive) // 2])
    seen = []
    descriptor = os.open(tmp_path / "text", os.O_RDONLY)
    reader = LineReader(descriptor, "here")
    assert reader.total is None
    with pytest.raises(UserError, match=r"here is cut short or damaged .*: fetch or compress it"):
        for chunk in reader.chunks():
            seen += chunk
    os.close(descriptor)
    assert len(seen) > 1000 and seen == lines[: len(seen)]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_follows_an_archive(read, compression):
    archive = COMPRESSIONS[compression](b"one\n")
    assert read(archive + bytes(512)) == ["one"]  # as tapes and some copies are filled up
    with pytest.raises(UserError, match=r"text\.en is cut short or damaged"):
        read(archive + b"and more")
    for end in range(2, len(archive)):
        with pytest.raises(UserError, match=r"text\.en is cut short or damaged"):
            read(archive[:end])


@pytest.mark.parametrize("line_end", [b"", b"\n"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_bomb_takes_no_memory(tmp_path, compression, line_end):
    path = tmp_path / "bomb"
    opener = {"gzip": gzip.open, "xz": partial(lzma.open, preset=0)}
    with opener[compression](path, "wb") as file:
        for _ in range(100):
            file.write(b"a" * (1 << 20) + line_end)
    descriptor = os.open(path, os.O_RDONLY)
    tracemalloc.start()
    try:
        chunks = LineReader(descriptor, "here").chunks()
        if line_end:
            assert sum(len(chunk) for chunk in chunks) == 100
        else:
            with pytest.raises(UserError, match="here line 1 has more than 1,048,576 bytes"):
                next(chunks)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()
        os.close(descriptor)


def test_an_xz_file_may_not_ask_for_all_memory(read):
    archive = bytearray(lzma.compress(b"a\n"))
    # The block's header: its length in units of 4, ..., the dictionary's size, ..., a checksum.
    end = 12 + 4 * archive[12]
    archive[16] = 40  # stands for 4 GiB
    archive[end : end + 4] = zlib.crc32(archive[12:end]).to_bytes(4, "little")
    with pytest.raises(UserError, match=r"text\.en .*Memory usage limit"):
        read(bytes(archive))
