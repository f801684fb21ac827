"""In which order the site's pages run, and what they wait for."""

import fcntl
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

DOCS = Path(__file__).parents[2] / "docs"
CELL = "```{code-cell}\n%s\n```\n"
PAGES = {
    "prose": "nothing to run",
    "needs": CELL % "quick_start()",
    "needs_and_trains": CELL % "quick_start(); train()",
    "alone": CELL % "1 + 1",
    "trains": CELL % "train(); train(short)",
}


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import run_pages

    yield run_pages.Build(DOCS, tmp_path / "site", tmp_path / "doctrees", tmp_path / "training")
    sys.modules.pop("run_pages")


def test_pages_that_wait_run_last_and_the_longest_first(build, tmp_path):
    for name, text in PAGES.items():
        (tmp_path / name).write_text(text)
    environment = SimpleNamespace(doc2path=lambda page: tmp_path / page, found_docs=PAGES)
    pages = list(PAGES)
    build._begin(None, environment, pages)
    # Sphinx gives processes what stands last first.
    assert pages == ["prose", "needs", "needs_and_trains", "alone", "trains"]


def test_a_page_waits_for_the_training_that_it_needs(build):
    with build.training.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        build._wait_for_quick_start(None, "alone", [PAGES["alone"]])
        arguments = (None, "needs", [PAGES["needs"]])
        waiting = threading.Thread(target=build._wait_for_quick_start, args=arguments)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()
