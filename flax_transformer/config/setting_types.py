"""Types of settings, and the check that a setting holds what its type hint says, wherever it comes
from: a Python file, the command line or JSON."""

import dataclasses
import math
import types
import typing
from typing import Any, Literal

from flax_transformer.errors import UserError

BleuTokenizer = Literal[
    "auto", "13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "flores101", "flores200",
    "spBLEU-1K", "none",
]  # fmt: skip
"""sacreBLEU's tokenizers, and auto, which chooses among them."""

_LARGEST = 2_000_000_000  # devices count in 32 bits, and a few are added to a seed

_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: f"a whole number of at most {_LARGEST:,}",
    float: "a finite number",
    str: "text without NUL or lone surrogates",
    tuple[str, ...]: "a list of texts (in Python a tuple)",
    types.NoneType: "None",
}


def require_types(section: object, name: str) -> None:
    """Raises `UserError` for a field of the dataclass `section` that does not hold its type.

    name: of the section, for the message

    As for type checkers, a whole number may stand for a float and True is not 1. A float must be
    finite: no comparison would ever refuse NaN.
    """
    for field, hint in field_types(type(section)).items():
        value = getattr(section, field)
        if not _fits(value, hint):
            setting = f"{name}.{field}" if name else field
            raise UserError(f"{setting} is {shown(value)}, but must be {_described(hint)}")


def field_types(cls: type) -> dict[str, Any]:
    """Returns the type of each field of a dataclass."""
    return typing.get_type_hints(cls)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union; of any other type, itself alone."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def shown(value: object) -> str:
    """Returns a wrong value for a message: short, without characters that command a terminal."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # whole numbers of over 4300 digits, lists in lists
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= 80 else text[:77] + "..."


def _fits(value: Any, hint: Any) -> bool:
    if len(members := alternatives(hint)) > 1:
        return any(_fits(value, member) for member in members)
    if typing.get_origin(hint) is Literal:
        return isinstance(value, str) and value in typing.get_args(hint)
    if hint is float:
        return _is_number(value) and _is_finite(value)
    if hint is int:
        return _is_number(value) and isinstance(value, int) and abs(value) <= _LARGEST
    if hint is str:
        return isinstance(value, str) and "\0" not in value and _is_unicode(value)
    if hint == tuple[str, ...]:
        return isinstance(value, tuple) and all(_fits(element, str) for element in value)
    return isinstance(value, hint)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _described(hint: Any) -> str:
    members = alternatives(hint)
    if all(dataclasses.is_dataclass(member) for member in members):
        return "a " + " or a ".join(member.__name__ for member in members)
    return " or ".join(
        f"one of {', '.join(typing.get_args(member))}"
        if typing.get_origin(member) is Literal
        else _NAMES[member]
        for member in members
    )
