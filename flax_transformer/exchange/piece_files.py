"""Files of pieces, and what is asked of all of them."""

from collections.abc import Sequence
from pathlib import Path

from flax_transformer.errors import UserError, require
from flax_transformer.exchange.tensor_files import read_json
from flax_transformer.files.ordinary_file import read_ordinary

_MOST_SPM = 1 << 26
_UNUSED = "<unused "

Files = tuple[list[str], list[str], tuple[bytes, bytes]]
"""Pieces by id of source and target, and their SentencePiece models."""


def read_spm(path: Path) -> bytes:
    """Returns a SentencePiece model; raises `UserError` where the file cannot be read."""
    try:
        return read_ordinary(path, _MOST_SPM)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def read_pieces(path: Path, size: int) -> list[str]:
    """Returns the pieces in a JSON file of ids by piece, as `list_pieces` does."""
    return list_pieces({i: piece for piece, i in read_json(path).items()}, size, path)


def list_pieces(known: dict[int, str], size: int, path: Path) -> list[str]:
    """Returns the pieces by id; ids that stand for nothing get a name that no text has.

    Raises `UserError` for an id that is not below `size`; `path` is where it stands.
    """
    wrong = next((i for i in known if type(i) is not int or not 0 <= i < size), None)
    require(
        wrong is None,
        f"{path} has the id {wrong!r} ({known.get(wrong)!r}), but config.json has "  # type: ignore[arg-type]
        f"{size:,} tokens: these files are not of one model",
    )
    return [known.get(i, f"{_UNUSED}{i}>") for i in range(size)]


def is_unused(piece: str) -> bool:
    """Returns whether `list_pieces` has named an id that stands for nothing."""
    return piece.startswith(_UNUSED)


def require_language(symbol: str, languages: Sequence[str], folder: Path, flag: str) -> None:
    """Raises `UserError` where `symbol`, which `flag` asks for, is none of the `languages`."""
    some = ", ".join(languages[:8])
    require(
        symbol in languages,
        f"{flag}: {folder} has no symbol {symbol}" + (f"; it has {some} ..." if some else ""),
    )
