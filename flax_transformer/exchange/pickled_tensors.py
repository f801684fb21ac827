"""Reads `pytorch_model.bin` without PyTorch, and without executing anything.

The file is a zip archive: one pickle, which describes the tensors, and the numbers of each storage
as they are. A pickle is a program that may call any function it names. This reader knows a handful
of names, builds descriptions for them, and refuses all others.
"""

import io
import pickle
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from flax_transformer.errors import UserError, require

_TYPES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
}
_LONGEST_PICKLE = 1 << 26


class _Tensor(NamedTuple):
    """Where a tensor lies: in the named storage, from `offset` on, with `strides` in numbers."""

    storage: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickled_tensors(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of `path` by name.

    Raises `UserError` where it is no such file, asks for anything but tensors, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} is no file of tensors as torch.save has written it since PyTorch 1.6, or is "
            f"damaged ({error}): save the model as safetensors, or copy it again"
        ) from None


def _read(archive: zipfile.ZipFile, path: Path) -> dict[str, np.ndarray]:
    names = archive.namelist()
    require(
        all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist()),
        f"{path} is compressed, which torch.save never does: do not trust it",
    )
    (program,) = [name for name in names if PurePosixPath(name).name == "data.pkl"]
    require(
        archive.getinfo(program).file_size <= _LONGEST_PICKLE,
        f"{path}: its list of tensors is larger than {_LONGEST_PICKLE:,} bytes: it is no model",
    )
    try:
        found = _Unpickler(io.BytesIO(archive.read(program)), path).load()
    except (pickle.UnpicklingError, AttributeError, IndexError) as error:
        raise ValueError(error) from None
    require(
        isinstance(found, dict) and all(isinstance(name, str) for name in found),
        f"{path} holds something other than tensors by name: save model.state_dict()",
    )
    storages = f"{PurePosixPath(program).parent}/data/"
    return {
        name: _array(archive, storages, tensor, f"{path}: {name}")
        for name, tensor in found.items()
        if isinstance(tensor, _Tensor)
    }


def _array(archive: zipfile.ZipFile, storages: str, tensor: _Tensor, name: str) -> np.ndarray:
    stored = np.frombuffer(archive.read(storages + tensor.storage), tensor.dtype)
    steps = (
        max(size - 1, 0) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    fits = 0 <= tensor.offset <= tensor.offset + sum(steps) < max(len(stored), 1)
    require(
        fits and min(tensor.shape + tensor.strides, default=0) >= 0,
        f"{name} reaches beyond the numbers that are stored: the file is damaged; copy it again",
    )
    strides = tuple(stride * stored.itemsize for stride in tensor.strides)
    view = np.lib.stride_tricks.as_strided(stored[tensor.offset :], tensor.shape, strides)
    return np.ascontiguousarray(view)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, path: Path):
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _describe
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise UserError(
            f"{self._path} wants to call {module}.{name}, which no file of tensors needs: nothing "
            "was executed; do not trust it, or ask for the model as safetensors"
        )

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype]:
        kind, dtype, key, *_ = pid
        require(
            kind == "storage" and isinstance(dtype, np.dtype) and str(key).isdigit(),
            f"{self._path} names a storage {pid!r} that is none: the file is damaged",
        )
        return str(key), dtype


def _describe(
    storage: tuple[str, np.dtype], offset: int, shape: tuple, strides: tuple, *_: Any
) -> _Tensor:
    return _Tensor(*storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
