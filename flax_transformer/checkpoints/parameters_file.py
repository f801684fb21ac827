"""Parameters without their run, in one file: what `export --format safetensors` writes.

A folder that holds it beside config.json and the vocabulary is read like a work directory.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import ml_dtypes
import numpy as np

from flax_transformer.checkpoints.progress import Progress
from flax_transformer.errors import UserError, require
from flax_transformer.files.ordinary_file import require_ordinary
from flax_transformer.files.whole_file import write_whole

StoredType = Literal["float32", "bfloat16", "float16"]

_TYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
_FORMAT = "flax_transformer"
_AGAIN = "export the model again, or copy the whole file"


class Origin(NamedTuple):
    """Where parameters come from: what `Loaded` has beside them (checkpoints/loading.py)."""

    steps: list[int]
    choice: str
    progress: Progress


def write_parameters_file(
    path: Path, params: Any, origin: Origin, stored_as: StoredType = "float32"
) -> None:
    """Writes `params`, float32, whole or not at all; raises `UserError` where it cannot."""
    from safetensors.numpy import save

    tensors = {
        name: np.ascontiguousarray(leaf).astype(_TYPES[stored_as])
        for name, leaf in _by_name(jax.device_get(params)).items()
    }
    about = {
        "format": _FORMAT,
        "steps": json.dumps(origin.steps),
        "choice": origin.choice,
        "progress": json.dumps(asdict(origin.progress)),
    }
    write_whole(path, save(tensors, about))


def read_parameters_file(path: Path, like: Any) -> tuple[Any, Origin]:
    """Returns parameters, float32, with the shardings of `like`, and their origin.

    like: a tree of arrays or descriptions of arrays, as in `load_parameters`

    Raises `UserError` where the file is damaged or holds those of another model.
    """
    from safetensors import SafetensorError, safe_open

    try:
        require_ordinary(path)
        with safe_open(path, "numpy") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            origin = _read_origin(file.metadata())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a file of parameters of this program, or damaged ({error}): {_AGAIN}"
        ) from None
    wanted = _by_name(like)
    require(
        tensors.keys() == wanted.keys(),
        f"{path} holds other parameters than config.json describes, such as "
        f"{sorted(tensors.keys() ^ wanted.keys())[:1]}: {_AGAIN}",
    )
    for name, leaf in wanted.items():
        _check(path, name, tensors[name], leaf.shape)
    leaves = [
        jax.device_put(tensors[name].astype(np.float32), leaf.sharding)
        for name, leaf in wanted.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), origin


def _by_name(tree: Any) -> dict[str, Any]:
    """Returns the leaves by the path to each, such as encoder.attention.query."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(key.key for key in path): leaf for path, leaf in leaves}


def _read_origin(about: Mapping[str, str]) -> Origin:
    """Returns what `write_parameters_file` put beside the tensors."""
    steps, progress = (json.loads(about[name]) for name in ("steps", "progress"))
    changes = tuple(progress.pop("data_changes", ()))
    return Origin(
        list(map(int, steps)), about["choice"], Progress(**progress, data_changes=changes)
    )


def _check(path: Path, name: str, tensor: np.ndarray, shape: tuple[int, ...]) -> None:
    require(
        tensor.shape == shape,
        f"{path}: {name} has the shape {tensor.shape}, but config.json makes it {shape}: {_AGAIN}",
    )
    require(
        tensor.dtype in _TYPES.values() and bool(np.isfinite(tensor).all()),
        f"{path}: {name} ({tensor.dtype}) must hold finite floating-point numbers: {_AGAIN}",
    )
