"""Docstrings, which are plain text, as Sphinx wants them.

Aligned lists ("name    meaning" or "name: meaning") become lists of definitions, indented lines
code, and `code` stands in single backticks.
"""

import re
from typing import Any

_ITEM = re.compile(r"^(?P<names>[a-z_*][\w*]*(?:, [\w*]+)*)(?::\s+|\s{2,})(?P<meaning>\S.*)$")
_CODE = re.compile(r"(`+)([^`]+)\1")
_PARENTS = re.compile(r",? parent: .*(?=\))")


def to_rst(docstring: str) -> str:
    """Returns a docstring as reStructuredText."""
    paragraphs = re.split(r"\n\s*\n", docstring.strip("\n"))
    return "\n\n".join(map(_paragraph, paragraphs)) + "\n"


def _paragraph(paragraph: str) -> str:
    lines = paragraph.rstrip().splitlines()
    if all(line.startswith("    ") for line in lines):
        return "::\n\n" + "\n".join(lines)
    items = [_ITEM.match(line) for line in lines]
    if not items[0] or any(
        not item and line[0] != " " for item, line in zip(items, lines, strict=True)
    ):
        return "\n".join(map(_escaped, lines))
    result = []
    for item, line in zip(items, lines, strict=True):
        if item:
            names = ", ".join(f"``{name}``" for name in item["names"].split(", "))
            result += [names, f"    {_escaped(item['meaning'])}"]
        else:
            result.append(f"    {_escaped(line.strip())}")
    return "\n".join(result)


def _escaped(line: str) -> str:
    """Returns a line of text whose backticks hold code and whose other signs mean nothing."""
    pieces = re.split(r"(`+[^`]+`+)", line)
    pieces[::2] = [re.sub(r"([\\*|_`])", r"\\\1", piece) for piece in pieces[::2]]
    pieces[1::2] = [_CODE.sub(r"``\2``", piece) for piece in pieces[1::2]]
    return "".join(pieces)


def _docstring(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst("\n".join(lines)).splitlines() if any(lines) else []


def _signature(
    app: Any, what: str, name: str, found: Any, options: Any, signature: str | None, result: Any
) -> tuple[str | None, Any] | None:
    """Leaves out what Flax adds to every module."""
    return (_PARENTS.sub("", signature), result) if signature and "parent: " in signature else None


def _skip(app: Any, what: str, name: str, found: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out fields of tuples about which nothing is said; the signature has them."""
    return True if (found.__doc__ or "").startswith("Alias for field number") else None


def setup(app: Any) -> dict[str, bool]:
    """Has autodoc call the above."""
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
