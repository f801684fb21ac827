"""Checks that a request is what its JSON schema says.

It knows the few keywords that `schemas.py` uses, and knows no other, so that what the schemas
promise to readers of /openapi.json is what is checked.
"""

import re
from collections.abc import Callable
from typing import Any

from flax_transformer.config.setting_types import shown
from flax_transformer.serving.refusals import RefusedError

Schema = dict[str, Any]

_ANNOTATIONS = {"title", "description", "default", "examples"}

_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "object": ("an object", lambda value: isinstance(value, dict)),
    "array": ("a list", lambda value: isinstance(value, list)),
    "string": ("a text", lambda value: isinstance(value, str)),
    "integer": (
        "a whole number",
        lambda value: isinstance(value, int) and not isinstance(value, bool),
    ),
}


def validate(value: Any, schema: Schema, place: str = "") -> None:
    """Raises `RefusedError` (422) at the first thing in `value` that `schema` does not allow.

    place: of `value` in the request, such as lines[3]; of the request itself ""
    """
    what, has_type = _TYPES[schema["type"]]
    if not has_type(value):
        raise _refused(place, f"is {shown(value)}, but must be {what}")
    for keyword, expected in schema.items():
        if keyword != "type" and keyword not in _ANNOTATIONS:
            _CHECKS[keyword](value, expected, place, schema)
    if isinstance(value, str):
        _require_unicode(value, place)


def _properties(value: dict, expected: dict[str, Schema], place: str, schema: Schema) -> None:
    for name, inner in value.items():
        if name in expected:
            validate(inner, expected[name], f"{place}.{name}" if place else name)


def _required(value: dict, expected: list[str], place: str, schema: Schema) -> None:
    for name in expected:
        if name not in value:
            raise _refused(place, f"has no {name!r}: give it; there is {_names(schema)}")


def _no_others(value: dict, expected: bool, place: str, schema: Schema) -> None:
    assert expected is False
    for name in value:
        if name not in schema["properties"]:
            raise _refused(place, f"has {shown(name)}, which is unknown: there is {_names(schema)}")


def _items(value: list, expected: Schema, place: str, schema: Schema) -> None:
    for number, inner in enumerate(value):
        validate(inner, expected, f"{place}[{number}]")


def _min_items(value: list, expected: int, place: str, schema: Schema) -> None:
    if len(value) < expected:
        raise _refused(place, f"has {len(value)} elements, but must have at least {expected}")


def _max_items(value: list, expected: int, place: str, schema: Schema) -> None:
    if len(value) > expected:
        message = f"has {len(value):,} elements, but at most {expected:,} are taken"
        raise _refused(place, f"{message}: send the others in further requests")


def _max_length(value: str, expected: int, place: str, schema: Schema) -> None:
    if len(value) > expected:
        message = f"has {len(value):,} characters, but at most {expected:,} are taken"
        raise _refused(place, f"{message}: divide it")


def _no_match(value: str, expected: Schema, place: str, schema: Schema) -> None:
    if re.search(expected["pattern"], value):
        raise _refused(place, f"is not what it must be: {schema['description']}")


def _minimum(value: int, expected: int, place: str, schema: Schema) -> None:
    if value < expected:
        raise _refused(place, f"is {shown(value)}, but must be at least {expected}")


def _maximum(value: int, expected: int, place: str, schema: Schema) -> None:
    if value > expected:
        raise _refused(place, f"is {shown(value)}, but must be at most {expected}")


def _enum(value: Any, expected: list, place: str, schema: Schema) -> None:
    if value not in expected:
        known = ", ".join(map(str, expected))
        raise _refused(place, f"is {shown(value)}, but must be one of {known}: {schema['title']}")


_CHECKS: dict[str, Callable[[Any, Any, str, Schema], None]] = {
    "properties": _properties,
    "required": _required,
    "additionalProperties": _no_others,
    "items": _items,
    "minItems": _min_items,
    "maxItems": _max_items,
    "maxLength": _max_length,
    "not": _no_match,
    "minimum": _minimum,
    "maximum": _maximum,
    "enum": _enum,
}


def _require_unicode(text: str, place: str) -> None:
    """JSON can write half of a pair of surrogates, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"holds half of a surrogate pair, {text[error.start]!a}: send whole"
        raise _refused(place, f"{message} characters") from None


def _names(schema: Schema) -> str:
    return ", ".join(schema["properties"])


def _refused(place: str, message: str) -> RefusedError:
    return RefusedError(422, f"{place or 'the request'} {message}")
