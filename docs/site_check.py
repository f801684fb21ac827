"""What a built site must not have: dead links, missing anchors, things from other hosts."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Page(HTMLParser):
    """The anchors of a page, and what it leads to or loads."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    without_text: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("img", "script", "iframe", "object") or (
            tag == "link" and "canonical" not in found.get("rel", "")
        ):
            self.loaded += [found[name] for name in ("src", "href", "data") if found.get(name)]
        if tag == "img" and not found.get("alt"):
            self.without_text.append(found.get("src", "")[:80])


def check_site(site: Path) -> list[str]:
    """Returns every fault of the pages of `site`, in words."""
    pages = {path: Page(path) for path in sorted(site.resolve().rglob("*.html"))}
    return [fault for page in pages.values() for fault in _faults(page, pages)]


def _faults(page: Page, pages: dict[Path, Page]) -> list[str]:
    faults = [f"{page.path}: a picture without alt text: {each}" for each in page.without_text]
    for link in page.loaded:
        if urlsplit(link).scheme not in ("", "data") or urlsplit(link).netloc:
            faults.append(f"{page.path}: loads {link} from another host")
    for link in {*page.links, *page.loaded}:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
        if not target.exists():
            faults.append(f"{page.path}: leads to {link}, which is not there")
        elif target in pages and unquote(parts.fragment) not in pages[target].anchors | {""}:
            faults.append(f"{page.path}: leads to {link}, which has no such place")
    return faults
