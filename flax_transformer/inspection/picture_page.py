"""The page that shows all pictures of a model: index.html, which needs no network and no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from string import Template

from flax_transformer.inspection.drawing import plain

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { --page: #fbfbfa; --ink: #1d1d1f; --soft: #5c5c61; --line: #dcdcd8; --link: #005a9c; }
@media (prefers-color-scheme: dark) {
  :root { --page: #17181a; --ink: #ececed; --soft: #a8a8ad; --line: #3a3b3f; --link: #7fc1f5; }
}
body { margin: 0 auto; max-width: 72rem; padding: 1rem 1.25rem 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.2rem; margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1.5rem; }
a { color: var(--link); }
a:focus-visible, .picture:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
nav li { margin: .2rem 0; }
figure { margin: 1.5rem 0; }
figcaption { color: var(--soft); max-width: 46rem; margin-top: .4rem; font-size: .95rem; }
/* Pictures are drawn on white, in the dark too: the colours of a heat map must stay as they are. */
.picture { overflow-x: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px;
  padding: .5rem; }
.picture img, .picture object { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.picture .wide { min-width: 44rem; }
</style>
<h1>$title</h1>
<nav aria-label="Contents">
<ul>
$contents
</ul>
</nav>
$notes
<main>
$sections
</main>
</html>
""")


@dataclass(frozen=True)
class Shown:
    """A picture of the page: its files' name without the ending, the heading under which it stands,
    its words, and its size in pixels."""

    name: str
    section: str
    caption: str
    alt: str
    size: tuple[int, ...]


def page(title: str, pictures: Sequence[Shown], notes: Sequence[str], explorer: str | None) -> str:
    """Returns the page with `pictures` in order.

    notes:    on pictures that there are not
    explorer: file name of the page that it leads to, if there is one
    """
    groups = [(name, list(group)) for name, group in groupby(pictures, lambda each: each.section)]
    contents = [
        f'<li><a href="#part_{number}" dir="auto">{_text(name)}</a></li>'
        for number, (name, _) in enumerate(groups, start=1)
    ]
    if explorer:
        words = "Explore: point at a word, see what it looks at"
        contents.insert(0, f'<li><a href="{escape(explorer)}">{words}</a></li>')
    sections = [
        f'<section id="part_{number}">\n<h2 dir="auto">{_text(name)}</h2>\n'
        + "".join(map(_figure, group))
        + "</section>"
        for number, (name, group) in enumerate(groups, start=1)
    ]
    return _PAGE.substitute(
        title=_text(title),
        contents="\n".join(contents),
        notes="".join(f"<p>{_text(note)}</p>\n" for note in notes),
        sections="\n".join(sections),
    )


def _figure(shown: Shown) -> str:
    width, height = shown.size
    wide = ' class="wide"' if width > 800 else ""
    name, alt = escape(shown.name), escape(shown.alt)
    size = f'width="{width}" height="{height}"'
    if shown.name == "model":  # in which links can be followed, which they cannot in an <img>
        image = (
            f'<object{wide} type="image/svg+xml" data="{name}.svg" {size} role="img" '
            f'aria-label="{alt}"><img src="{name}.png" alt="{alt}"></object>'
        )
    else:
        image = f'<img{wide} src="{name}.svg" {size} alt="{alt}" loading="lazy">'
    return (
        f'<figure>\n<div class="picture" tabindex="0" role="group" aria-label="{name}">'
        f"{image}</div>\n"
        f'<figcaption dir="auto">{escape(shown.caption)} <a href="{name}.svg">SVG</a> '
        f'<a href="{name}.png">PNG</a></figcaption>\n</figure>\n'
    )


def _text(text: str) -> str:
    return escape(plain(text, 300))
