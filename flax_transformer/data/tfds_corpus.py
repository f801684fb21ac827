"""A translation dataset of TensorFlow Datasets as a corpus, without TensorFlow.

Prepared as ArrayRecord files, a dataset can be read at random and needs no TensorFlow at all. The
library is imported only when used: that takes a while, and text files do not need it.
"""

import hashlib
import html
import re
import textwrap
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flax_transformer.config import Tfds
from flax_transformer.data.pairs import Pair, Pairs, hash_contents
from flax_transformer.errors import UserError

_FORMAT = "array_record"

# WMT's test sets come from SGML files, whose text TFDS takes as it is; crawled text has some, too.
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|#\d{1,7}|#[xX][\da-fA-F]{1,6});")
_ENTITIES_ARE_CHARACTERS = b"entities are characters"
"""Part of the fingerprint, since the files do not tell what is made of them."""


def title_and_loaders(config: Tfds) -> tuple[str, dict[str, Callable[[], Pairs]]]:
    """Returns what to call the corpus, and how to read each split.

    Downloads and prepares the dataset where that has not been done. Raises `UserError` for an
    unknown dataset, language or split, and for a failed download.
    """
    builder = _builder(config)
    languages = (config.source_language, config.target_language)
    for setting, language in zip(("source_language", "target_language"), languages, strict=True):
        if language not in builder.info.features:
            raise UserError(
                f"data.{setting} is '{language}', but {config.name} has only "
                f"{', '.join(builder.info.features)}"
            )
    available = list(builder.info.splits)
    for name in ("train", "validation"):
        if name not in available:
            raise UserError(f"{config.name} has no {name} split, only {', '.join(available)}")
    # Some have no test split; they can be trained on all the same.
    names = ["train", "validation"] + ["test"] * ("test" in available)
    title = f"TFDS {builder.info.full_name}, {' -> '.join(languages)}"
    return title, {name: partial(TfdsPairs, builder, name, languages) for name in names}


class TfdsPairs(Pairs):
    """One split of a prepared dataset."""

    def __init__(self, builder: Any, split: str, languages: tuple[str, str]):
        self._records = builder.as_data_source(split)
        self._files = [Path(path) for path in builder.info.splits[split].filepaths]
        self._languages = languages

    def __len__(self) -> int:
        return len(self._records)

    def _pairs(self, indices: range) -> list[Pair]:
        source, target = self._languages
        return [
            (_sentence(record[source]), _sentence(record[target]))
            for record in self._records.__getitems__(indices)
        ]

    def fingerprint(self) -> str:
        """Returns a hash of the files as they are: much faster than to decode every pair."""
        digests = []
        for path in self._files:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").digest())
        languages = [language.encode() for language in self._languages]
        return hash_contents([*languages, *digests, _ENTITIES_ARE_CHARACTERS])


def _sentence(record: bytes) -> str:
    """Returns the text of one side, each entity replaced by what it stands for."""
    text = record.decode("utf-8")
    return _ENTITY.sub(_character, text) if "&" in text else text


def _character(entity: re.Match[str]) -> str:
    """Returns what a whole entity stands for.

    For control characters, line ends among them, that is a space.
    """
    character = html.unescape(entity[0])  # "" for some control characters
    return character if character and unicodedata.category(character) != "Cc" else " "


def _builder(config: Tfds) -> Any:
    import tensorflow_datasets
    import tensorflow_datasets.translate  # registers the datasets

    directory = config.directory and Path(config.directory).expanduser()
    try:
        builder = tensorflow_datasets.builder(config.name, data_dir=directory)
    except (OSError, TypeError, ValueError) as error:
        reason = textwrap.shorten(str(error), 600)
        raise UserError(f"data.name is '{config.name}', but: {reason}") from None
    _prepare(builder, config)
    if builder.info.file_format.value != _FORMAT:
        raise UserError(
            f"{builder.data_dir} holds {config.name} in the format "
            f"{builder.info.file_format.value}, which cannot be read at random: name another, "
            f"empty folder in data.directory to prepare it as {_FORMAT}"
        )
    return builder


def _prepare(builder: Any, config: Tfds) -> None:
    """Downloads and writes the dataset; does nothing where it is there already."""
    try:
        builder.download_and_prepare(file_format=_FORMAT)
    # Whatever goes wrong inside (network, disk, a download that changed), the way out is the same.
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 400)
        raise UserError(
            f"{config.name} is not in {builder.data_dir}, and preparing it there failed "
            f"({reason}). To prepare it elsewhere, run\n"
            f'  python -c "import tensorflow_datasets as tfds, tensorflow_datasets.translate; '
            f"tfds.builder('{config.name}', data_dir='DATA', file_format='{_FORMAT}')"
            '.download_and_prepare()"\n'
            "on a machine with a network, copy the folder DATA here and name it in data.directory"
        ) from error
