"""Settings as JSON: how a work directory remembers them, and how two runs' are compared."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_transformer.config import Config
from flax_transformer.config_error import ConfigError
from flax_transformer.whole_file import write_whole


def save_config(config: Config, path: Path) -> None:
    """Writes `config` as JSON; the file appears whole or not at all."""
    write_whole(path, json.dumps(config_to_dict(config), indent=2) + "\n")


def load_config(path: Path) -> Config:
    """Reads what `save_config` wrote; `ConfigError` names the file and what is wrong in it."""
    try:
        return config_from_dict(Config, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: is this the work directory of a run?") from None
    except (json.JSONDecodeError, TypeError, KeyError, ConfigError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def config_to_dict(section: Any) -> dict[str, Any]:
    """A dataclass as nested plain dictionaries; where a field may hold one of several dataclasses,
    the key "kind" tells which."""
    result: dict[str, Any] = {}
    for name, annotation in typing.get_type_hints(type(section)).items():
        value = getattr(section, name)
        if dataclasses.is_dataclass(value):
            tag = {"kind": type(value).__name__} if _alternatives(annotation) else {}
            result[name] = tag | config_to_dict(value)
        else:
            result[name] = list(value) if isinstance(value, tuple) else value
    return result


def config_from_dict(cls: type, values: Mapping[str, Any]) -> Any:
    """The inverse of `config_to_dict`; an unknown key is a `TypeError`, as in a call.

    Where "kind" is missing, as from when a field held one kind only, it is the first.
    """
    annotations = typing.get_type_hints(cls)
    arguments = {}
    for name, value in values.items():
        annotation = annotations.get(name)
        if isinstance(value, Mapping):
            value = dict(value)
            section_class: Any = annotation
            if alternatives := _alternatives(annotation):
                section_class = alternatives[value.pop("kind", next(iter(alternatives)))]
            value = config_from_dict(section_class, value)
        arguments[name] = tuple(value) if isinstance(value, list) else value
    return cls(**arguments)


def differing_fields(a: Config, b: Config) -> list[str]:
    """One line `section.field: old -> new` for every setting in which `a` and `b` differ."""
    before, after = _flatten(config_to_dict(a)), _flatten(config_to_dict(b))
    absent = "(absent)"
    return [
        f"{name}: {before.get(name, absent)} -> {after.get(name, absent)}"
        for name in {**before, **after}
        if before.get(name, absent) != after.get(name, absent)
    ]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        flat |= _flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def _alternatives(annotation: Any) -> dict[str, type]:
    """The dataclasses of a union by name; empty for anything else."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return {}
    members = typing.get_args(annotation)
    return {t.__name__: t for t in members if isinstance(t, type) and dataclasses.is_dataclass(t)}
