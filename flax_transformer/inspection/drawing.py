"""How every picture looks, and how it becomes a file.

Pictures are drawn on figures of their own, never through pyplot, so that they leave no trace in the
program that asks for them.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

from matplotlib import font_manager, style
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from flax_transformer.files.whole_file import write_whole

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Of Okabe and Ito, which those tell apart who do not see all colours."""

BLUE, VERMILLION, GREEN = COLORS[:3]
GRAY = "#6E6E6E"

_FONT = "DejaVu Sans"  # comes with matplotlib
_DOTS_PER_INCH = 120
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "legend.frameon": False,
    # Text stays text: smaller files, which can be searched, in whatever fonts the reader has.
    "svg.fonttype": "none",
    "svg.hashsalt": "flax_transformer",
}


class Picture(Figure):
    """A matplotlib Figure that says in words what it shows, and that a notebook displays.

    caption: what is seen and how to read it, for those who see it
    alt:     the same for those who do not
    missing: characters for which no font is installed; in a PNG, boxes stand for them
    """

    caption: str = ""
    alt: str = ""
    missing: str = ""

    def describe(self, caption: str, alt: str) -> None:
        self.caption, self.alt = caption, alt

    def encode(self, kind: Literal["svg", "png"]) -> bytes:
        """Returns the picture as a file, the same bytes each time.

        In an SVG text stays text, which the reader's fonts draw.
        """
        file = io.BytesIO()
        creator = {"Creator": None, "Date": None} if kind == "svg" else {"Software": None}
        words = {"Title": self.alt} if kind == "svg" else {"Description": self.alt}
        metadata: dict[str, Any] = {**creator, **words}
        with house_style(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            self._settle()
            self.savefig(file, format=kind, dpi=_DOTS_PER_INCH, metadata=metadata)
        return file.getvalue()

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all; its name ends in .svg or .png.

        Raises `UserError` where it cannot be written.
        """
        write_whole(path, self.encode("svg" if path.suffix == ".svg" else "png"))

    def _settle(self) -> None:
        """Lays out once, which takes longer than all else, however often the picture is saved."""
        if self.get_layout_engine() is not None:
            self.draw_without_rendering()
            self.set_layout_engine("none")

    def _repr_png_(self) -> bytes:
        return self.encode("png")


@contextmanager
def house_style(text: str = "") -> Iterator[None]:
    """In the body figures are made in one style, whatever style the program has chosen.

    text: what will be written; fonts are found for characters that the usual one lacks
    """
    with style.context(["default", {**_STYLE, "font.family": fonts_for(text)[0]}]):
        yield


@contextmanager
def new_picture(width: float, height: float, text: str = "") -> Iterator[Picture]:
    """Yields an empty picture of that size in inches, to be drawn in the body in one style.

    text: all pieces of sentences that will stand in it
    """
    with house_style(text):
        picture = Picture(figsize=(width, height), layout="constrained", dpi=_DOTS_PER_INCH)
        picture.missing = fonts_for(text)[1]
        yield picture


def fonts_for(text: str) -> tuple[list[str], str]:
    """Returns families that have between them the characters of `text`, as far as fonts with them
    are installed, and the characters that none has."""
    families, missing = [_FONT], _lacking(font_manager.findfont(_FONT), text)
    if missing:
        for name, path in _installed():
            left = _lacking(path, missing)
            if left != missing:
                families, missing = [*families, name], left
            if not missing:
                break
    return [*families, "sans-serif"], missing


@cache
def _installed() -> list[tuple[str, str]]:
    """Name and file of each upright font that is installed, those without serifs first."""
    found = {
        entry.name: entry.fname
        for entry in reversed(font_manager.fontManager.ttflist)
        # Matplotlib's last resort has a box for every character.
        if entry.style == "normal" and not entry.name.startswith("Last Resort")
    }
    return sorted(found.items(), key=lambda item: ("Sans" not in item[0], item[0]))


@cache
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a damaged font is of no use to anybody
        return frozenset()


def _lacking(path: str, text: str) -> str:
    """Returns the characters of `text` that are to be seen and that the font does not have."""
    known = _characters(path)
    return "".join(
        dict.fromkeys(
            c for c in text if ord(c) not in known and not c.isspace() and c.isprintable()
        )
    )


def shorten(piece: str, longest: int = 14) -> str:
    """Returns `piece` fit for a label: cut if it is long, and with "$" not taken for a formula."""
    cut = piece if len(piece) <= longest else piece[: longest - 1] + "…"
    return cut.replace("$", r"\$")


def plain(text: str, longest: int = 120) -> str:
    """Returns a sentence fit for a title or a caption, in one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
