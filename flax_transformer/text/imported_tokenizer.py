"""A vocabulary that others have made: their pieces and their splitting, under our ids.

Models of OPUS-MT, M2M-100 and NLLB split the two languages by SentencePiece models that number
their pieces otherwise than the vocabulary does, and put a symbol for the language before the
source, the target or both. All of that lies in one file, a zip archive:

    settings.json        format, pieces, spm, before, separate
    source.spm, target.spm

    pieces    what each of our ids stands for: for the target, and for the source unless it has its
              own, which are then in "source_pieces"
    before    symbols that every source and every target begins with, as two lists
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import sentencepiece

from flax_transformer.errors import UserError
from flax_transformer.text.tokenizer import SPACE_SIGN, UNK_ID, Tokenizer

FORMAT = "flax_transformer imported vocabulary 1"
_SETTINGS = "settings.json"
_LANGUAGE = re.compile(r">>[^<>\s]+<<")
_MOST_BYTES = 1 << 28
_LAST_SPECIAL = UNK_ID


def pack_vocabulary(
    pieces: Sequence[str],
    spm: tuple[bytes, bytes],
    *,
    source_pieces: Sequence[str] | None = None,
    before: tuple[Sequence[str], Sequence[str]] = ((), ()),
    their_ids: tuple[Sequence[int], Sequence[int]] | None = None,
) -> bytes:
    """Returns the file of a vocabulary; equal arguments give equal bytes.

    pieces:        by our id; the first four are those of PAD, EOS, BOS and UNK
    spm:           the SentencePiece models of source and target
    source_pieces: by our id, where the source has other ones
    before:        symbols among the pieces that every source, and every target, begins with
    their_ids:     for each of our ids, theirs, in the source and in the target
    """
    settings = {
        "format": FORMAT,
        "pieces": list(pieces),
        "source_pieces": None if source_pieces is None else list(source_pieces),
        "before": [list(symbols) for symbols in before],
        "their_ids": None if their_ids is None else [list(ids) for ids in their_ids],
    }
    members = {
        _SETTINGS: json.dumps(settings, ensure_ascii=False).encode(),
        "source.spm": spm[0],
        "target.spm": spm[1],
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return packed.getvalue()


class ImportedTokenizer(Tokenizer):
    """Splits sources; `target` splits targets. As `Tokenizer`, but unknown characters are lost.

    Raises `ValueError` for bytes that `pack_vocabulary` did not make.
    """

    has_placeholders = False
    byte_ids = range(0)  # bytes are pieces as others are

    def __init__(self, model: bytes, side: int = 0):
        settings, self.spm = _unpack(model)
        pieces, source_pieces = settings["pieces"], settings["source_pieces"]
        own = pieces if side or source_pieces is None else source_pieces
        if len(own) != len(pieces) or len(own) <= _LAST_SPECIAL:
            raise ValueError("source and target do not have equally many pieces")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=self.spm[side])
        except RuntimeError:
            raise ValueError("its SentencePiece models are damaged") from None
        self._side = side
        self.their_ids: list[list[int]] | None = settings["their_ids"]
        """For each of our ids that of the model's makers, in the source and in the target."""
        self.model = model
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self._pieces: list[str] = own
        self.vocabulary_size = len(own)
        self._ids = {piece: i for i, piece in enumerate(own) if i > _LAST_SPECIAL}
        self.before = [self._ids[symbol] for symbol in settings["before"][side]]
        """Ids that every text begins with."""
        symbols = {*settings["before"][0], *settings["before"][1]}
        symbols |= {piece for piece in own if _LANGUAGE.fullmatch(piece)}
        self._symbols = {self._ids[symbol] for symbol in symbols if symbol in self._ids}
        self.text_pieces: Mapping[str, int] = {
            piece: i for piece, i in self._ids.items() if i not in self._symbols
        }
        known = {" ", *(piece for piece in self.text_pieces if len(piece) == 1)}
        self.characters = frozenset(known)

    def __reduce__(self) -> tuple:
        return ImportedTokenizer, (self.model, self._side)

    @cached_property
    def target(self) -> "ImportedTokenizer":
        """That of the target."""
        return self if self._side else ImportedTokenizer(self.model, side=1)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text: its language, its pieces; none of a text without pieces.

        A source may name its language itself: ">>fra<< Good morning.".
        """
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> list[int]:
        before = self.before
        if (named := _LANGUAGE.match(text)) and named.group() in self._ids:
            before, text = [self._ids[named.group()]], text[named.end() :]
        pieces = self._processor.encode(text, out_type=str, num_threads=1)
        ids = [self._ids.get(piece, UNK_ID) for piece in pieces]
        return [*before, *ids] if ids else []

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Returns the text of each sequence, without special symbols and languages."""
        hidden = self._symbols | set(range(_LAST_SPECIAL + 1))
        rows = [[self._pieces[i] for i in map(int, row) if i not in hidden] for row in ids]
        # A piece of the vocabulary that this SentencePiece model lacks keeps its sign of a space.
        texts = (self._processor.decode_pieces(row) for row in rows)
        return [text.replace(SPACE_SIGN, " ").strip() for text in texts]

    def normalize(self, texts: Sequence[str]) -> list[str]:
        """Returns each text as it is before it is split into pieces."""
        found = self._processor.normalize(list(texts))
        return [text.replace(SPACE_SIGN, " ").strip() for text in found]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns what each id stands for."""
        return [self._pieces[i] for i in ids]

    def ids_of_piece(self, piece: str) -> list[int]:
        return [self._ids.get(piece, UNK_ID)]

    @cached_property
    def tags(self) -> Mapping[str, int]:
        """None: its symbols for languages are settled with the model."""
        return {}

    def has_tag(self, tag: str) -> bool:
        return tag in self._ids

    def tag_id(self, tag: str) -> int:
        """Returns the id of a symbol; raises `UserError` if there is none."""
        if tag not in self._ids:
            raise UserError(
                f"the imported vocabulary has no piece {tag}, and none can be added to it: leave "
                "the tag out of data.train"
            )
        return self._ids[tag]

    def sample(self, texts: Sequence[str], dropout: float, seed: int) -> list[list[int]]:
        raise UserError(
            f"tokenizer.dropout is {dropout}, but an imported vocabulary splits a text in one way: "
            "set it to 0"
        )


def _unpack(model: bytes) -> tuple[dict[str, Any], tuple[bytes, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
                raise ValueError("it is too large")
            settings = json.loads(archive.read(_SETTINGS))
            spm = archive.read("source.spm"), archive.read("target.spm")
        if settings["format"] != FORMAT:
            raise ValueError(f"it has the format {settings['format']!r} instead of {FORMAT!r}")
    except (zipfile.BadZipFile, KeyError, TypeError) as error:
        raise ValueError(f"not an archive of a vocabulary ({error})") from None
    return settings, spm
