"""The vocabulary of a Hugging Face folder under our ids: PAD, EOS, BOS, UNK, then all others.

Ours has a BOS of its own. Where the decoder begins with a token that is also something else (Marian
begins with padding, M2M-100 with the end symbol), BOS is a copy of that token's row.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flax_transformer.errors import UserError, require
from flax_transformer.exchange.huggingface_config import TheirModel
from flax_transformer.exchange.m2m_vocabulary import m2m_languages, read_m2m
from flax_transformer.exchange.marian_npz import read_yaml_vocabulary, vocabulary_paths
from flax_transformer.exchange.piece_files import (
    Files,
    list_pieces,
    read_pieces,
    read_spm,
    require_language,
)
from flax_transformer.text.imported_tokenizer import ImportedTokenizer, pack_vocabulary
from flax_transformer.text.tokenizer import Tokenizer

_SPECIAL = ("<pad>", "</s>", "<s>", "<unk>")
NO_ROW = -1
"""In place of an id: a row that the other language's table has more of."""


class TheirVocabulary(NamedTuple):
    """A vocabulary, and where its rows lie.

    file:        what the work directory keeps
    target_rows: for each of our ids, theirs, by which the target's tensors are taken
    source_rows: likewise for the source
    copies:      whether BOS is a copy of a row that stands elsewhere too
    """

    file: bytes
    target_rows: list[int]
    source_rows: list[int]
    copies: bool


def read_vocabulary(
    folder: Path, their: TheirModel, source_language: str | None, target_language: str | None
) -> TheirVocabulary:
    """Reads the vocabulary files of `folder`.

    source_language, target_language: codes that its texts begin with, as the model knows them

    Raises `UserError` where a file is missing or damaged, or a language is missing or unknown.
    """
    is_marian = their.kind.startswith("marian")
    try:
        files = _marian(folder, their) if is_marian else read_m2m(folder, their.source_size)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{folder}: its vocabulary is not as transformers writes one ({error!r}): copy it again"
        ) from None
    if is_marian:
        before = _marian_languages(files, folder, target_language)
    else:
        before = m2m_languages(files, folder, source_language, target_language)
    source, target, spm = files
    unknown = _id_of("<unk>", target, folder)
    shared = their.start in (their.pad, their.eos, unknown)
    rows = [
        _rows(pieces, (their.pad, their.eos, their.start, _id_of("<unk>", pieces, folder)))
        for pieces in (source, target)
    ]
    longest = max(map(len, rows))
    named = []
    for own, pieces in zip(rows, (source, target), strict=True):
        names = [*_SPECIAL, *(pieces[i] for i in own[4:])]
        names += [f"<missing {i}>" for i in range(len(own), longest)]
        own += [NO_ROW] * (longest - len(own))
        named.append(names)
    file = pack_vocabulary(
        named[1],
        spm,
        source_pieces=named[0] if named[0] != named[1] else None,
        before=before,
        their_ids=(rows[0], rows[1]),
    )
    file = _plain(file, spm, rows[1]) or file
    _check(file, folder)
    return TheirVocabulary(file, rows[1], rows[0], shared)


def _rows(pieces: Sequence[str], special: tuple[int, ...]) -> list[int]:
    """Their ids in our order."""
    return [*special, *(i for i in range(len(pieces)) if i not in special)]


def _plain(file: bytes, spm: tuple[bytes, bytes], rows: Sequence[int]) -> bytes | None:
    """Returns the SentencePiece model alone, where it is one that this project has made."""
    if spm[0] != spm[1] or list(rows) != list(range(len(rows))):
        return None
    try:
        own = Tokenizer(spm[0])
    except ValueError:
        return None
    return spm[0] if own.vocabulary_size == len(rows) else None


def _check(file: bytes, folder: Path) -> None:
    try:
        if file[:2] == b"PK":
            _ = ImportedTokenizer(file).target
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder}: its vocabulary cannot be read ({error})") from None


def _marian(folder: Path, their: TheirModel) -> Files:
    spm = read_spm(folder / "source.spm"), read_spm(folder / "target.spm")
    if their.kind == "marian_npz":
        source, target = (
            list_pieces({i: piece for piece, i in read_yaml_vocabulary(path).items()}, size, path)
            for path, size in zip(
                vocabulary_paths(folder), (their.source_size, their.target_size), strict=True
            )
        )
        return source, target, spm
    target = source = read_pieces(folder / "vocab.json", their.source_size)
    if their.model.own_source_table:
        target = read_pieces(folder / "target_vocab.json", their.target_size)
    return source, target, spm


def _id_of(piece: str, pieces: Sequence[str], folder: Path) -> int:
    require(piece in pieces, f"{folder}: its vocabulary has no {piece}")
    return pieces.index(piece)


def _marian_languages(
    files: Files, folder: Path, target_language: str | None
) -> tuple[list[str], list[str]]:
    codes = [piece for piece in files[0] if piece.startswith(">>") and piece.endswith("<<")]
    if target_language is None or not codes:
        return [], []
    symbol = f">>{target_language}<<"
    require_language(symbol, codes, folder, "--target-language")
    return [symbol], []
