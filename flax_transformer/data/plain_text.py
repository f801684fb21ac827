"""Text from bytes of any origin: recognised by how it begins, not by what the file is called.

Reads UTF-8, and UTF-16 and UTF-32 with a byte order mark, plain or compressed by gzip or xz. All
else ends in a `UserError` that says what it is.
"""

import codecs
import lzma
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from flax_transformer.errors import UserError

BLOCK = 1 << 16
"""Bytes to read at once."""

TELLING = 16
"""This many first bytes tell what a file is; fewer suffice where they hold a line end."""
TELLING_BINARY = 262
"""This many where they hold a NUL, as far as the sign of a tar archive lies from its start."""
_DECOMPRESSION_MEMORY = 256 << 20  # xz -9 asks for 65 MiB, a hostile file for 4 GiB

_MARKS = {
    codecs.BOM_UTF8: "UTF-8",
    codecs.BOM_UTF32_LE: "UTF-32LE",  # before UTF-16LE, whose mark begins this one
    codecs.BOM_UTF32_BE: "UTF-32BE",
    codecs.BOM_UTF16_LE: "UTF-16LE",
    codecs.BOM_UTF16_BE: "UTF-16BE",
}
_OTHERS = [
    (rb"BZh[1-9]1AY&SY", "compressed with bzip2: decompress it first, with bzip2 -d"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd: decompress it first, with zstd -d"),
    (rb"\x04\x22\x4d\x18", "compressed with lz4: decompress it first, with lz4 -d"),
    (rb"\x1f\x9d", "compressed with compress: decompress it first, with uncompress"),
    (rb"PK\x03\x04", "a zip archive: take the text out of it first, with unzip"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive: take the text out of it first, with 7z x"),
    (rb"Rar!\x1a\x07", "a RAR archive: take the text out of it first, with unrar x"),
    (rb"(?s).{257}ustar", "a tar archive: take the text out of it first, with tar -xf"),
    (rb"%PDF-\d", "a PDF document: take the text out of it first, with pdftotext"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document: save it as plain text, in UTF-8"),
]
_CONTROLS = bytes({*range(32)} - {*b"\t\n\v\f\r\x1a\x1b"})
"""Bytes that text in an encoding of single bytes hardly ever holds."""


def read_text(blocks: Iterable[bytes], name: str) -> Iterator[str]:
    """Yields the text of `blocks`, a piece for each, without a byte order mark at its start.

    No piece is large, however much an archive holds. Raises `UserError` for what is not text, for
    damaged archives, and for NULs, which no text has. The error gives the `name` and, where it can,
    the line; the text before that place has been yielded by then.
    """
    head, blocks = _look_ahead(iter(blocks))
    if start := _decompressor(head):
        head, blocks = _look_ahead(_decompress(blocks, start, name))
        if _decompressor(head):
            raise UserError(f"{name} is compressed twice: decompress it once, and name that file")
        name += " (decompressed)"  # what an error says to convert is not the file itself
    for pattern, what in _OTHERS:
        if re.match(pattern, head):
            raise UserError(f"{name} is {what}")
    mark, encoding = _mark(head)
    if not mark and (unmarked := _guess_encoding(head)):
        raise UserError(
            f"{name} is {unmarked} without a byte order mark: convert it with "
            f"iconv -f {unmarked} -t UTF-8"
        )
    return _decode(_without_mark(blocks, mark), encoding, name)


def is_plain(head: bytes) -> bool:
    """Returns whether what begins with `head` can be plain UTF-8: its bytes "\\n" end lines."""
    return _decompressor(head) is None and _mark(head)[1] == "UTF-8"


def no_line_feeds(name: str) -> UserError:
    """Returns the error for text of one line that has carriage returns inside."""
    return UserError(
        f"{name} has no line feeds, only carriage returns: convert it, for instance with "
        r"tr '\r' '\n'"
    )


def _look_ahead(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Returns what `blocks` begin with, and all of them.

    Waits for no more than a line: whoever types one wants to see it translated.
    """
    head = b""
    for block in blocks:
        head += block
        if len(head) >= (TELLING_BINARY if b"\0" in head else TELLING) or b"\n" in head:
            break
    return head, chain([head] if head else [], blocks)


def _mark(head: bytes) -> tuple[bytes, str]:
    """Returns the byte order mark that `head` begins with, or b"", and the encoding."""
    return next((pair for pair in _MARKS.items() if head.startswith(pair[0])), (b"", "UTF-8"))


def _without_mark(blocks: Iterator[bytes], mark: bytes) -> Iterator[bytes]:
    first = next(blocks, b"").removeprefix(mark)
    return chain([first] if first else [], blocks)


class _GzipDecompressor:
    """zlib's decompressor with the interface of lzma's."""

    def __init__(self):
        self._zlib = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    eof = property(lambda self: self._zlib.eof)
    unused_data = property(lambda self: self._zlib.unused_data)
    needs_input = property(lambda self: not self._zlib.unconsumed_tail)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def _xz_decompressor() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DECOMPRESSION_MEMORY)


_Start = Callable[[], _GzipDecompressor | lzma.LZMADecompressor]
_COMPRESSIONS: dict[bytes, _Start] = {
    b"\x1f\x8b": _GzipDecompressor,
    b"\xfd7zXZ\0": _xz_decompressor,
}


def _decompressor(head: bytes) -> _Start | None:
    """Returns how to decompress what begins with `head`, or None where it is not compressed.

    `head` may be too short for that to be certain.
    """
    for magic, start in _COMPRESSIONS.items():
        if len(head) > 1 and magic.startswith(head[: len(magic)]):
            return start
    return None


def _decompress(blocks: Iterator[bytes], start: _Start, name: str) -> Iterator[bytes]:
    """Yields what one archive holds, or several that follow one another.

    No piece is larger than `BLOCK`.
    """
    try:
        decompressor, data = start(), next(blocks)
        while True:
            if piece := decompressor.decompress(data, BLOCK):
                yield piece
            if decompressor.eof:
                # NULs may fill up what follows.
                data = decompressor.unused_data.lstrip(b"\0")
                while not data and (block := next(blocks, b"")):
                    data = block.lstrip(b"\0")
                if not data:
                    return
                decompressor = start()
                continue
            data = next(blocks, b"") if decompressor.needs_input else b""
            if decompressor.needs_input and not data and not piece:
                raise EOFError("it ends too early")
    except (EOFError, zlib.error, lzma.LZMAError) as error:  # also for too large a dictionary
        raise UserError(
            f"{name} is cut short or damaged ({error}): fetch or compress it again"
        ) from None


def _guess_encoding(head: bytes) -> str | None:
    """Returns the encoding of text of two or four bytes per character, or None for other text.

    Its NULs show it. Text that can be UTF-8 with NULs inside is taken for UTF-8, unless nearly
    every second byte would be a control character, as the upper bytes of letters of all alphabets
    are.
    """
    if b"\0" not in head:
        return None
    if _is_utf8(head) and max(_control_share(head[0::2]), _control_share(head[1::2])) < 0.8:
        return None
    encodings = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")
    likeness = {encoding: _likeness(head, encoding) for encoding in encodings}
    best = max(encodings, key=lambda encoding: likeness[encoding])
    return best if likeness[best] else None


def _control_share(part: bytes) -> float:
    return 1 - len(part.translate(None, bytes(range(32)))) / max(len(part), 1)


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("UTF-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _likeness(head: bytes, encoding: str) -> int:
    """Counts the characters below 0x7f (spaces, line ends, letters) in `head`.

    Returns 0 where `head` is not text in that encoding.
    """
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return 0
    ordinary = [character for character in text if character not in "\t\n\v\f\r"]
    odd = sum(unicodedata.category(character) in ("Cc", "Cn", "Co") for character in ordinary)
    if "\0" in text or 50 * odd > len(text):
        return 0
    return sum(character < "\x7f" for character in text)


def _decode(blocks: Iterator[bytes], encoding: str, name: str) -> Iterator[str]:
    """Yields the text of `blocks`; judges what is not in `encoding` by `TELLING` bytes or more."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, returns, after_return, only_ascii = 1, 0, False, True
    for block in chain(blocks, [b""]):
        error, around = None, b""
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as found:
            error, around = found, found.object
            text = around[: found.start].decode(encoding)
            while len(around) < TELLING and (more := next(blocks, b"")):
                around += more
        text, nul, rest = text.partition("\0")
        if text:
            yield text
            if line == 1:
                returns, after_return = returns + text.count("\r"), text.endswith("\r")
            line += text.count("\n")
            only_ascii = only_ascii and text.isascii()
        if nul and not (error and _is_binary(around)):
            raise UserError(
                f"{name} line {line} holds a NUL (byte 0x00), as files do that were not written to "
                r"the end: fetch or write it again, or remove NULs with tr -d '\0'"
            )
        if error:
            line += rest.count("\n")
            raise _not_decoded(f"{name} line {line}", encoding, error, around, only_ascii)
    if line == 1 and returns > after_return:
        raise no_line_feeds(name)


def _is_binary(block: bytes) -> bool:
    """Returns whether `block`, which is not UTF-8, cannot be text of single bytes either."""
    return len(block.translate(None, _CONTROLS)) < 0.99 * len(block)


def _not_decoded(
    place: str, encoding: str, error: UnicodeDecodeError, around: bytes, only_ascii: bool
) -> UserError:
    """Returns the error for bytes at `place` that are not in `encoding`.

    around: those bytes and what stands beside them.
    only_ascii: whether every character before them is of one byte.
    """
    if encoding != "UTF-8":
        return UserError(
            f"{place} is not {encoding}, as its byte order mark says: it is cut short or damaged, "
            "fetch or convert it again"
        )
    what = f"{place} is not UTF-8 (byte 0x{error.object[error.start]:02x})"
    if _is_binary(around):
        return UserError(f"{what}, nor other text: name a file of plain text")
    if not only_ascii:
        return UserError(
            f"{what}, though the text before it is: correct that place, or drop such bytes with "
            "iconv -c -f UTF-8 -t UTF-8"
        )
    # Windows has letters and quotes where Latin 1 has control characters.
    likely = "WINDOWS-1252" if re.search(rb"[\x80-\x9f]", around) else "LATIN1"
    return UserError(f"{what}: convert the text, for instance with iconv -f {likely} -t UTF-8")
