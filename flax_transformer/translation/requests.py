"""What is to be translated, and how: lines of text, or of JSON with an object for each text.

JSON rather than columns: a text may hold tabs, what is left out needs no place, and a key that is
misspelled has a name to complain of.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from flax_transformer.errors import UserError

KEYS = ("source", "prefix", "tag", "required")


class Requests(NamedTuple):
    """Texts to translate.

    prefixes: what the translation of each begins with, "" where it may begin with anything
    tags:     the symbol of the vocabulary before each, "" for none
    required: phrases that the translation of each holds
    """

    lines: list[str]
    prefixes: list[str]
    tags: list[str]
    required: list[list[str]]


def plain_requests(lines: Sequence[str], prefix: str = "", tag: str = "") -> Requests:
    """Returns `lines`, which all have that prefix and that tag."""
    return Requests(list(lines), [prefix] * len(lines), [tag] * len(lines), [[]] * len(lines))


def parse_requests(
    lines: Sequence[str], name: str, first: int, prefix: str = "", tag: str = ""
) -> Requests:
    """Returns what `lines` of JSON ask for.

    name, first:  of the file and of its line that comes first, for messages
    prefix, tag:  for those that name none

    Raises `UserError` for a line that is no object with a "source", or has other keys than `KEYS`.
    """
    default = {"prefix": prefix, "tag": tag, "required": []}
    rows: list[dict[str, Any]] = [
        default | _parse(line, f"{name} line {i}") for i, line in enumerate(lines, first)
    ]
    return Requests(*([row[key] for row in rows] for key in KEYS))


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "source" not in found:
        raise UserError(
            f'{where} is no JSON object with a "source": write each text as {{"source": "..."}}'
        )
    for key, value in found.items():
        if key not in KEYS:
            raise UserError(f'{where} has "{key}", but known are: {", ".join(KEYS)}')
        texts = value if key == "required" and isinstance(value, list) else [value]
        if key == "required" and texts is not value:
            raise UserError(f'{where} has a "required" that is no list: write ["phrase", ...]')
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f'{where} has a "{key}" that is no text: write it in quotes')
    return found
