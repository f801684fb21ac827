"""The tensors of a Hugging Face folder, from safetensors or from PyTorch's pickles."""

import json
from collections.abc import Iterable
from pathlib import Path, PurePath

import numpy as np

from flax_transformer.errors import UserError, require
from flax_transformer.exchange.pickled_tensors import read_pickled_tensors
from flax_transformer.files.ordinary_file import read_ordinary

_MOST_JSON = 1 << 26
_KINDS = ("model.safetensors", "pytorch_model.bin")


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Returns all tensors of a folder by name, as they are stored.

    Of several files that an index names, each is read. Raises `UserError` where there is no such
    file, where one is damaged, or where an index names files outside the folder.
    """
    for name in _KINDS:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _read_all(folder, _files_of_index(index))
        if (folder / name).is_file():
            return _read_all(folder, [name])
    raise UserError(f"{folder} holds neither {_KINDS[0]} nor {_KINDS[1]}: is it a model's folder?")


def is_hugging_face(folder: Path) -> bool:
    """Returns whether a folder holds a model as transformers writes it."""
    path = folder / "config.json"
    return path.is_file() and "model_type" in read_json(path)


def read_json(path: Path) -> dict:
    """Returns the object in a JSON file; raises `UserError` where there is none."""
    try:
        found = json.loads(read_ordinary(path, _MOST_JSON).decode())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): copy it again") from None
    require(isinstance(found, dict), f"{path} is not a JSON object: copy it again")
    return found


def _files_of_index(index: Path) -> list[str]:
    names = read_json(index).get("weight_map")
    require(isinstance(names, dict), f"{index} has no weight_map: copy it again")
    files = sorted(set(map(str, dict(names or {}).values())))
    for file in files:
        require(
            PurePath(file).name == file,
            f"{index} names {file!r}, which lies outside its folder: do not trust it",
        )
    return files


def _read_all(folder: Path, files: Iterable[str]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for file in files:
        path = folder / file
        found |= read_safetensors(path) if path.suffix == ".safetensors" else read_pickled(path)
    return found


def read_pickled(path: Path) -> dict[str, np.ndarray]:
    require(path.is_file(), f"{path} is missing: copy the whole folder")
    return read_pickled_tensors(path)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a safetensors file, which holds nothing that could be executed."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is not a safetensors file, or damaged ({error}): copy it again"
        ) from None
