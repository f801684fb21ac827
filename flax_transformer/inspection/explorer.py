"""A page on which to look into a model by hand: one HTML file, which asks nobody for anything.

The page, its style and its scripts lie in the folder explorer/ beside this file.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from flax_transformer.errors import require
from flax_transformer.files.whole_file import write_whole
from flax_transformer.inspection.sentence import describe_sentence
from flax_transformer.translation.trained_model import TrainedModel

_FOLDER = Path(__file__).with_suffix("")
_STYLES = ("style.css", "tokens.css", "heads.css", "search.css", "media.css")
"""One style sheet in parts, of which later ones lie over earlier ones."""

_SCRIPTS = (
    "dom.js",
    "pieces.js",
    "weights.js",
    "view.js",
    "tokens.js",
    "ribbons.js",
    "heads.js",
    "alternatives.js",
    "tree.js",
    "live.js",
    "main.js",
)
"""One script in parts; main.js, which starts it, comes last."""

_LIVE = "Type a sentence, and see how it is translated."


def write_explorer(path: Path, model: TrainedModel, sources: Sequence[str]) -> None:
    """Writes one file that shows what `model` does with each of `sources`, without a network.

    Raises `UserError` where there is no sentence, or where the file cannot be written.
    """
    require(len(sources) > 0, "sources is empty: give at least one sentence to explore")
    described = [describe_sentence(model, source) for source in sources]
    write_whole(path, saved_page(described, about=_describe(model)))


def saved_page(sentences: Sequence[dict[str, Any]], about: str = "") -> str:
    """Returns the page with `sentences`, each as `describe_sentence` returns it.

    about: a line on the model, below the title
    """
    return _page({"live": False, "about": about, "sentences": sentences})


def live_page(about: str = _LIVE) -> str:
    """Returns the page with a field for a sentence, for a server to send.

    It asks `POST explore`, beside its own address, {"source", "prefix", "beam_size"}, the last only
    where a person has chosen it, and takes what `describe_sentence` returns, or {"error": text}.
    """
    return _page({"live": True, "about": about, "sentences": []})


def content_security_policy(*, live: bool) -> str:
    """Returns what the page may do: run its own script and, if `live`, ask its own server.

    The page says so itself; a server says it again in the header Content-Security-Policy.
    """
    connect = ["connect-src 'self'"] if live else []
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(_script())}",
            f"style-src {_hash(_style())}",
            "img-src data:",  # the icon
            *connect,
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",  # no text becomes markup
        ]
    )


def _describe(model: TrainedModel) -> str:
    name = model.workdir.resolve().name
    return f"What the model “{name}” looks at, and what its search considers."


def _page(data: dict[str, Any]) -> str:
    template = Template((_FOLDER / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        policy=content_security_policy(live=data["live"]),
        style=_style(),
        script=_script(),
        # A data block ends at "</script", wherever that stands.
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    )


def _style() -> str:
    return _join(_STYLES)


def _script() -> str:
    return f'"use strict";\n{_join(_SCRIPTS)}'


def _join(names: Sequence[str]) -> str:
    return "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
