"""Settings as JSON: how a work directory remembers them, and how two runs' are compared."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_transformer.config.run import Config
from flax_transformer.config.setting_types import alternatives, field_types, shown
from flax_transformer.errors import UserError
from flax_transformer.files.ordinary_file import read_ordinary
from flax_transformer.files.whole_file import write_whole

_MOST_BYTES = 1 << 24
_BEFORE = {"data.placeholders": 0.0}
"""Values for settings that the files of earlier versions lack: what those versions did."""

_GONE = ("model.fused_attention",)
"""Settings of earlier versions that are passed over.

model.fused_attention false left out an accelerator's kernel for attention alone, which differs from
the formula by rounding. Such a run goes on with model.kernels fast: that keeps all else that was
fast, and on a CPU every number."""


def save_config(config: Config, path: Path) -> None:
    """Writes `config` as JSON; the file appears whole or not at all."""
    write_whole(path, json.dumps(config_to_dict(config), indent=2) + "\n")


def load_config(path: Path) -> Config:
    """Reads what `save_config` wrote; raises `UserError`, which names the file and the mistake."""
    values: Any = None
    try:
        text = read_ordinary(path, _MOST_BYTES).decode()
        values = json.loads(text, object_pairs_hook=_object, parse_int=_whole_number)
        return _from_json(Config, values, "")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: is this the work directory of a run?") from None
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except RecursionError:
        reason = "it is nested too deeply"
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError as error:  # what json and the settings themselves refuse
        reason = str(error)
    if isinstance(values, dict) and "model_type" in values:
        raise UserError(
            f"{path} is that of a model in Hugging Face's format; to use it here: "
            f"flax-transformer import --from {path.parent} --workdir OUT"
        )
    raise UserError(
        f"{path} cannot be read: {reason}\n"
        "Correct it, or delete it: training with the run's settings writes it anew."
    )


def config_to_dict(section: Any) -> dict[str, Any]:
    """Returns a dataclass as nested plain dictionaries.

    Where a field may hold one of several dataclasses, the key "kind" tells which.
    """
    result: dict[str, Any] = {}
    for name, hint in field_types(type(section)).items():
        value = getattr(section, name)
        if dataclasses.is_dataclass(value):
            tag = {"kind": type(value).__name__} if len(alternatives(hint)) > 1 else {}
            result[name] = tag | config_to_dict(value)
        else:
            result[name] = list(value) if isinstance(value, tuple) else value
    return result


def differing_fields(a: Config, b: Config) -> dict[str, str]:
    """Returns, by name, a line `section.field: old -> new` for every setting that differs."""
    before, after = _flatten(config_to_dict(a)), _flatten(config_to_dict(b))
    absent = "(absent)"
    return {
        name: f"{name}: {before.get(name, absent)} -> {after.get(name, absent)}"
        for name in {**before, **after}
        if before.get(name, absent) != after.get(name, absent)
    }


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; raises `UserError` for a name that is given twice.

    Nobody could say which of its two values is meant.
    """
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise UserError(f"{_plain(name)} is given twice")
        result[name] = value
    return result


def _whole_number(text: str) -> int | float:
    """Reads a JSON number without a fraction.

    Python refuses to read very long ones. They become floats, which are refused as too large once
    the setting that holds them is known.
    """
    return int(text) if len(text) < 100 else float(text)


def _from_json(cls: type, values: Any, place: str) -> Any:
    """Builds a dataclass from its JSON: the inverse of `config_to_dict`.

    place: what `values` are called in messages

    What is left out has its default. The dataclasses check the values themselves.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{place or 'it'} is {shown(values)}, but must be an object: {{...}}")
    hints = field_types(cls)
    arguments = {}
    for name, value in values.items():
        setting = f"{place}.{_plain(name)}" if place else _plain(name)
        if setting in _GONE:
            continue
        if name not in hints:
            raise UserError(f"{setting} is no setting; there is: {', '.join(hints)}")
        classes = [each for each in alternatives(hints[name]) if dataclasses.is_dataclass(each)]
        if classes:
            chosen, value = _kind(classes, value, setting)
            value = _from_json(chosen, value, setting)
        texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
        arguments[name] = tuple(value) if texts and hints[name] == tuple[str, ...] else value
    for name in hints.keys() - values.keys():
        if (setting := f"{place}.{name}") in _BEFORE:
            arguments[name] = _BEFORE[setting]
    for field in dataclasses.fields(cls):
        optional = {field.default, field.default_factory} != {dataclasses.MISSING}
        if field.name not in values and not optional:
            raise UserError(f"{place}.{field.name} is missing")
    return cls(**arguments)


def _kind(classes: list[Any], values: Any, place: str) -> tuple[type, Any]:
    """Returns the class of a section, one of `classes`, and its values without their "kind".

    Where "kind" is missing it is the first: the file is from when the field held one kind only.
    """
    if len(classes) == 1 or not isinstance(values, Mapping) or "kind" not in values:
        return classes[0], values
    known = {each.__name__: each for each in classes}
    values = dict(values)
    kind = values.pop("kind")
    if not isinstance(kind, str) or kind not in known:
        raise UserError(f"{place}.kind is {shown(kind)}, but must be one of {', '.join(known)}")
    return known[kind], values


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        flat |= _flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def _plain(name: str) -> str:
    """Returns a name from a damaged file, fit for a message."""
    return shown(name)[1:-1]
