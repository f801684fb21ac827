"""Runs the pages through Sphinx, several at a time, and says how far it is and what went wrong."""

import fcntl
import io
import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from flax_transformer.runtime.quick_compilation import QUICK_FLAGS

_RUNS = re.compile(r"\{code-cell\}|\"cell_type\": \"code\"|\{eval\}`")
_NEEDS_QUICK_START = re.compile(r"quick_start|FLAX_TRANSFORMER_WORKDIR")
_TRAINS = re.compile(r"\btrain(?:ed_once)?\(")
_FAULT = re.compile(r"^(?P<place>\S+?)(?::\d+)?: (?:WARNING|ERROR|CRITICAL)")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Build:
    """One call of Sphinx. Its events keep the fields up to date.

    training  a file that is locked until the quick start is trained; None where it is
    running   pages to read whose code runs
    ran       how many of them have run
    failed    why, of each page whose code ended with an error
    """

    docs: Path
    site: Path
    doctrees: Path
    training: Path | None = None
    running: list[str] = field(default_factory=list)
    ran: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    begin: float = field(default_factory=time.monotonic)

    def run(self, processes: int, made_from: str, fresh: bool) -> list[str]:
        """Makes the site; returns its faults, one text each, and has their pages read next time.

        made_from: changes when all pages must run again
        """
        from sphinx.application import Sphinx
        from sphinx.util.docutils import docutils_namespace, patch_docutils

        # Most of a page's time goes into compiling programs that run for a second.
        os.environ["XLA_FLAGS"] = QUICK_FLAGS
        warnings = io.StringIO()
        with patch_docutils(), docutils_namespace(), _one_page_at_a_time():
            app = Sphinx(
                srcdir=self.docs,
                confdir=self.docs,
                outdir=self.site,
                doctreedir=self.doctrees,
                buildername="html",
                confoverrides={"made_from": made_from},
                status=None,
                warning=warnings,
                freshenv=fresh,
                parallel=processes,
            )
            app.connect("env-before-read-docs", self._begin)
            app.connect("source-read", self._wait_for_quick_start, priority=1)
            app.connect("doctree-read", self._page_in_this_process, priority=900)
            app.connect("env-merge-info", self._pages_from_another_process, priority=900)
            app.build()
        faults = list(self._faults(_COLORS.sub("", warnings.getvalue())))
        self._forget(faults)
        return [*faults, *(f"{page}: {why}" for page, why in self.failed.items())]

    def _begin(self, app: Any, env: Any, pages: list[str]) -> None:
        found = {page: env.doc2path(page).read_text(encoding="utf-8") for page in pages}
        running = [page for page in pages if _RUNS.search(found[page])]
        # Processes take pages from the end: first those that need not wait for the quick start, and
        # of these the ones that train most, so that no long one is left to the end.
        running.sort(key=lambda page: len(_TRAINS.findall(found[page])))
        running.sort(key=lambda page: not _NEEDS_QUICK_START.search(found[page]))
        pages[:] = [page for page in pages if page not in running] + running
        self.running = running
        text = f"{len(env.found_docs)} pages; {len(pages)} are new or changed"
        print(f"{text}, {len(running)} of these have code to run", flush=True)

    def _wait_for_quick_start(self, app: Any, page: str, content: list[str]) -> None:
        if self.training is not None and _NEEDS_QUICK_START.search(content[0]):
            with self.training.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH)

    def _page_in_this_process(self, app: Any, doctree: Any) -> None:
        if multiprocessing.parent_process() is None:
            self._is_read(app.env, app.env.docname)

    def _pages_from_another_process(self, app: Any, env: Any, pages: list[str], other: Any) -> None:
        for page in pages:
            self._is_read(env, page)

    def _is_read(self, env: Any, page: str) -> None:
        from myst_nb.sphinx_ import NbMetadataCollector

        executed = NbMetadataCollector.get_exec_data(env, page)
        if executed is None:
            return
        self.ran += 1
        seconds = time.monotonic() - self.begin
        line = f"page {self.ran} of {len(self.running)}, {seconds:.0f} s: {page}"
        line += f", ran {executed['runtime']:.0f} s"
        if not executed["succeeded"]:
            self.failed[page] = _reason(executed["traceback"])
            line += ", FAILED"
        print(line, flush=True)

    def _faults(self, warnings: str) -> Iterator[str]:
        """Splits what Sphinx has warned of, leaving out what `failed` has in more detail."""
        for fault in re.split(r"\n(?=\S+: (?:WARNING|ERROR|CRITICAL))", warnings.strip()):
            if fault and "[mystnb.exec]" not in fault:
                yield fault.strip()

    def _forget(self, faults: list[str]) -> None:
        """Removes what is kept of faulty pages, which would not be looked at again otherwise."""
        pages = set(self.failed)
        for fault in faults:
            place = Path(match["place"]) if (match := _FAULT.match(fault)) else Path()
            if place.suffix not in (".md", ".ipynb") or not place.is_relative_to(self.docs):
                return shutil.rmtree(self.doctrees)  # whose fault it is, is not known
            pages.add(place.relative_to(self.docs).with_suffix("").as_posix())
        for page in pages:
            (self.doctrees / f"{page}.doctree").unlink(missing_ok=True)


def _one_page_at_a_time() -> Any:
    """Has a process read one page rather than ten, so that none is left with all the slow ones."""
    return mock.patch(
        "sphinx.builders.make_chunks", lambda pages, processes: [[page] for page in pages]
    )


def _reason(traceback: str) -> str:
    """Returns the code of a cell that failed, up to the line where it did, and its error."""
    text = _COLORS.sub("", traceback)
    error = text.strip().rsplit("\n", 1)[-1].rstrip(": ")
    _, found, cell = text.partition("following cell:\n------------------\n")
    code = cell.partition("\n------------------\n")[0].strip().splitlines()
    if not found or not code:
        return error
    line = re.search(r"^Cell In\[\d+\], line (\d+)|^-+> (\d+) ", cell, re.MULTILINE)
    number = int(line[1] or line[2]) if line else len(code)
    shown = code[max(0, number - 3) : number]
    return "\n    ".join([f"{error}\n  in the cell that begins with: {code[0]}\n  at:", *shown])
