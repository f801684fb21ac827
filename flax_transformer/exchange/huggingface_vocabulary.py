"""The vocabulary of a Hugging Face folder under our ids: PAD, EOS, BOS, UNK, then all others.

Ours has a BOS of its own. Where the decoder begins with a token that is also something else (Marian
begins with padding, M2M-100 with the end symbol), BOS is a copy of that token's row.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flax_transformer.errors import UserError, require
from flax_transformer.exchange.huggingface_config import TheirModel
from flax_transformer.exchange.marian_npz import read_yaml_vocabulary, vocabulary_paths
from flax_transformer.exchange.tensor_files import read_json
from flax_transformer.files.ordinary_file import read_ordinary
from flax_transformer.text.imported_tokenizer import ImportedTokenizer, pack_vocabulary
from flax_transformer.text.tokenizer import Tokenizer

_MOST_SPM = 1 << 26
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
        files = (_marian if is_marian else _m2m)(folder, their)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{folder}: its vocabulary is not as transformers writes one ({error!r}): copy it again"
        ) from None
    if is_marian:
        before = _marian_languages(files, folder, target_language)
    else:
        before = _m2m_languages(files, folder, source_language, target_language)
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


Files = tuple[list[str], list[str], tuple[bytes, bytes]]
"""Pieces by id of source and target, and their SentencePiece models."""


def _marian(folder: Path, their: TheirModel) -> Files:
    spm = _bytes(folder / "source.spm"), _bytes(folder / "target.spm")
    if their.kind == "marian_npz":
        source, target = (
            _named({i: piece for piece, i in read_yaml_vocabulary(path).items()}, size, path)
            for path, size in zip(
                vocabulary_paths(folder), (their.source_size, their.target_size), strict=True
            )
        )
        return source, target, spm
    target = source = _pieces(folder / "vocab.json", their.source_size)
    if their.model.own_source_table:
        target = _pieces(folder / "target_vocab.json", their.target_size)
    return source, target, spm


def _m2m(folder: Path, their: TheirModel) -> Files:
    path = folder / "sentencepiece.bpe.model"
    spm = _bytes(path)
    pieces = _added(folder, their.source_size)
    if (folder / "vocab.json").is_file():
        known = read_json(folder / "vocab.json")
    else:  # NLLB: that of SentencePiece, behind four symbols of fairseq
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_proto=spm)
        ids = range(3, processor.get_piece_size())
        known = {name: i for i, name in enumerate(("<s>", "<pad>", "</s>", "<unk>"))}
        known |= {processor.id_to_piece(i): i + 1 for i in ids}
    named = _named(pieces | {i: piece for piece, i in known.items()}, their.source_size, path)
    return named, named, (spm, spm)


def _added(folder: Path, size: int) -> dict[int, str]:
    """Symbols that the tokenizer's settings add to the vocabulary, by id."""
    found: dict[int, str] = {}
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        added = read_json(settings).get("added_tokens_decoder") or {}
        found |= {int(i): str(token["content"]) for i, token in dict(added).items()}
    if (folder / "tokenizer.json").is_file():
        added_tokens = read_json(folder / "tokenizer.json").get("added_tokens") or []
        found |= {int(token["id"]): str(token["content"]) for token in added_tokens}
    if (folder / "added_tokens.json").is_file():
        found |= {int(i): piece for piece, i in read_json(folder / "added_tokens.json").items()}
    return {i: piece for i, piece in found.items() if 0 <= i < size}


def _pieces(path: Path, size: int) -> list[str]:
    return _named({i: piece for piece, i in read_json(path).items()}, size, path)


def _named(known: dict[int, str], size: int, path: Path) -> list[str]:
    """Pieces by id; ids that stand for nothing get a name that no text has."""
    wrong = next((i for i in known if type(i) is not int or not 0 <= i < size), None)
    require(
        wrong is None,
        f"{path} has the id {wrong!r} ({known.get(wrong)!r}), but config.json has "  # type: ignore[arg-type]
        f"{size:,} tokens: these files are not of one model",
    )
    return [known.get(i, f"<unused {i}>") for i in range(size)]


def _bytes(path: Path) -> bytes:
    try:
        return read_ordinary(path, _MOST_SPM)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


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
    _require_language(symbol, codes, folder, "--target-language")
    return [symbol], []


def _m2m_languages(
    files: Files, folder: Path, source: str | None, target: str | None
) -> tuple[list[str], list[str]]:
    found = []
    for flag, code in (("--source-language", source), ("--target-language", target)):
        require(
            code is not None,
            f"{folder} is a model of many languages: give {flag} as it names them (M2M-100 has fr, "
            "NLLB fra_Latn)",
        )
        symbol = next((name for name in (f"__{code}__", str(code)) if name in files[0]), str(code))
        _require_language(symbol, files[0], folder, flag)
        found.append([symbol])
    return found[0], found[1]


def _require_language(symbol: str, known: Sequence[str], folder: Path, flag: str) -> None:
    some = ", ".join([piece for piece in known if piece[:2] in (">>", "__")][:8])
    require(
        symbol in known,
        f"{flag}: {folder} has no symbol {symbol}" + (f"; it has {some} ..." if some else ""),
    )
