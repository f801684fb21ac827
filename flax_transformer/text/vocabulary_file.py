"""Opens the vocabulary of a work directory, whichever kind it is."""

from pathlib import Path

from flax_transformer.errors import UserError
from flax_transformer.files.ordinary_file import read_ordinary
from flax_transformer.text.imported_tokenizer import ImportedTokenizer
from flax_transformer.text.tokenizer import Tokenizer

_MOST_BYTES = 1 << 28
_OR_DELETE = "; or, where nothing has been trained yet, delete it to have one learned"


def load_tokenizer(path: Path, vocabulary_size: int | None = None) -> Tokenizer:
    """Reads the file that `train_tokenizer` or an import wrote, for a model of `vocabulary_size`.

    Raises `UserError` where it cannot be read, is damaged or has another size.
    """
    try:
        content = read_ordinary(path, _MOST_BYTES)
        tokenizer = (ImportedTokenizer if content[:2] == b"PK" else Tokenizer)(content)
    except OSError as error:
        raise UserError(f"the vocabulary {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(
            f"{path} is not a vocabulary of this program, or damaged: {error}. Put a whole "
            f"copy there{_OR_DELETE}"
        ) from None
    if vocabulary_size is not None and tokenizer.vocabulary_size != vocabulary_size:
        raise UserError(
            f"{path} is another vocabulary: it has {tokenizer.vocabulary_size} pieces, but "
            f"tokenizer.vocabulary_size is {vocabulary_size}. Put the run's own there"
            f"{_OR_DELETE}"
        )
    return tokenizer
