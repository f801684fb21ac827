"""Links from a page into the repository, which lead somewhere on the site as well.

Pages are read on the site and in the repository. There a link leads to a file; here it leads to the
page made of that file, where there is one, and otherwise MyST offers the file for download. A page
that is only `{include} ../FILE.md` shows that file, whose own links are turned accordingly.
"""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")
_FENCE = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)


def shown_files(docs: Path) -> dict[Path, Path]:
    """Returns, for each file outside `docs` that a page shows, that page."""
    shown = {docs.parent / "README.md": docs / "index.md"}
    for page in docs.glob("*.md"):
        for target in _INCLUDE.findall(page.read_text(encoding="utf-8")):
            shown[(docs / target).resolve()] = page
    return shown


def turn_links(text: str, origin: Path, page: Path, shown: dict[Path, Path]) -> str:
    """Returns the text of the file `origin` with links as `page` needs them; code stays."""

    def turned(match: re.Match[str]) -> str:
        parts = urlsplit(match[1])
        if parts.scheme or parts.netloc or not parts.path:
            return match[1]
        target = (origin.parent / parts.path).resolve()
        path = Path(os.path.relpath(shown.get(target, target), page.parent)).as_posix()
        return parts._replace(path=path).geturl()

    pieces = _FENCE.split(text)
    pieces[::2] = [_LINK.sub(turned, piece) for piece in pieces[::2]]
    return "".join(pieces)


def _read(app: Any, docname: str, content: list[str]) -> None:
    docs, page = Path(app.srcdir), Path(app.env.doc2path(docname))
    if page.suffix != ".md":
        return
    shown = shown_files(docs)

    def included(match: re.Match[str]) -> str:
        origin = (page.parent / match[1]).resolve()
        app.env.note_dependency(str(origin))
        return turn_links(origin.read_text(encoding="utf-8"), origin, page, shown)

    text = turn_links(content[0], page, page, shown)
    content[0] = _INCLUDE.sub(included, text)


def setup(app: Any) -> dict[str, bool]:
    """Turns the links of each page as it is read."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
