"""The site's frame: every page has its place, commands on pages are read, and faults are found."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

import flax_transformer as ft
from flax_transformer.commands.command_line import parse_arguments, parse_train_arguments
from flax_transformer.commands.main import COMMANDS
from flax_transformer.config import Config, TextFiles
from flax_transformer.config.json import save_config

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MADE = {"_site", "_work", "jupyter_execute", ".jupyter_cache"}
PAGES = sorted(
    path
    for end in ("md", "ipynb")
    for path in DOCS.rglob(f"*.{end}")
    if not MADE.intersection(path.relative_to(DOCS).parts)
)
COURSE = sorted(DOCS.glob("course/[0-9]*.md"))

_VARIABLES = {"CONFIG": "configs/tatoeba_en_fr.py", "SLURM_ARRAY_TASK_ID": "0"}
_WORDS = r"((?: +(?:'[^']*'|[^\s|<>\"`#\[]+))*)"
_COMMAND = re.compile(
    rf"^[^|`#]*?(?:python |flax-transformer )(\w+)(?:\.py)?{_WORDS} *(.?)",
    re.MULTILINE,
)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    yield
    for name in ("site_check", "mathml", "docstrings", "repository"):
        sys.modules.pop(name, None)


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """The commands in blocks of a page, without those that only show what may be written."""
    text = text.replace("\\\n", " ")
    text = re.sub(r"\$\{?(\w+)\}?", lambda match: _VARIABLES.get(match[1], match[1]), text)
    found = []
    for name, words, after in _COMMAND.findall(text):
        if name in COMMANDS and words and after != "[" and "..." not in words and "{" not in words:
            found.append((name, shlex.split(words)))
    return found


COMMANDS_OF_PAGES = [
    pytest.param(name, words, id=f"{path.stem}: {name} {' '.join(words)}"[:100])
    for path in [*PAGES, ROOT / "README.md", *(ROOT / "configs").glob("*.py")]
    for name, words in commands_of(path.read_text(encoding="utf-8"))
]


def test_commands_are_found():
    text = "    srun python train.py --config \\\n  $CONFIG 'a,tag=<bt>'  # why\n"
    assert commands_of(text) == [("train", ["--config", _VARIABLES["CONFIG"], "a,tag=<bt>"])]
    assert not commands_of("    python train.py --config a.py [--workdir DIR]\n")
    assert len(COMMANDS_OF_PAGES) > 40


@pytest.mark.parametrize(("name", "words"), COMMANDS_OF_PAGES)
def test_commands_on_pages_are_read_by_their_parsers(name, words, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    saved = tmp_path / "config.json"  # in place of that of a run that is not there
    files = TextFiles(directory="data", source_language="en", target_language="fr")
    save_config(Config(data=files), saved)
    words = [str(saved) if word.endswith("/config.json") else word for word in words]
    if name == "train":
        assert parse_train_arguments(words).config
    else:
        module = importlib.import_module(f"flax_transformer.commands.{name}")
        assert parse_arguments(getattr(module, f"{name.capitalize()}Arguments"), words).workdir


def test_a_wrong_flag_on_a_page_is_found(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        parse_train_arguments(["--config", "quickstart", "--training.stepz", "3"])


def listed(page: Path) -> set[Path]:
    """The pages in the tables of contents of a page, and in theirs."""
    entries = re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    found = set()
    for line in "\n".join(entries).splitlines():
        if line and not line.startswith(":"):
            target = page.parent / line
            (path,) = (target.with_suffix(end) for end in (".md", ".ipynb") if
                       target.with_suffix(end).exists())  # fmt: skip
            found |= {path} | (listed(path) if path.suffix == ".md" else set())
    return found


def test_every_page_is_in_the_table_of_contents():
    assert set(PAGES) == listed(DOCS / "index.md") | {DOCS / "index.md"}


@pytest.mark.parametrize("page", COURSE, ids=lambda page: page.stem)
def test_a_page_of_the_course_has_three_exercises_and_their_solutions(page):
    text = page.read_text(encoding="utf-8")
    exercises = text.rpartition("\n## Exercises\n")[2]
    assert re.findall(r"^(\d)\. ", exercises, re.MULTILINE)[:4] == ["1", "2", "3"]
    assert re.findall(r'code_prompt_show: "Solution (\d)"', exercises) == ["1", "2", "3"]
    for solution in re.findall(r"^```\{code-cell\}(.*?)^```", exercises, re.DOTALL | re.MULTILINE):
        assert "assert" in solution or "learned(" in solution or "Solution" not in solution


def test_everything_public_is_on_the_page_of_the_api():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    assert not [name for name in ft.__all__ if not re.search(rf"(:: |\.){name}\b", text)]


GOOD = '<h1 id="a">A</h1><a href="#a">a</a><a href="https://x.org">x</a><img src="data:," alt="a">'


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="b.html">b</a>', "leads to b.html, which is not there"),
        ('<a href="#b">b</a>', "leads to #b, which has no such place"),
        ('<img src="data:,">', "a picture without alt text"),
        ('<img src="data:," alt="">', "a picture without alt text"),
        ('<script src="https://x.org/x.js"></script>', "loads https://x.org/x.js from another"),
        ('<link rel="stylesheet" href="//x.org/x.css">', "loads //x.org/x.css from another"),
    ],
)
def test_faults_of_a_site_are_found(tmp_path, html, fault):
    from site_check import check_site

    page = tmp_path / "index.html"
    page.write_text(GOOD)
    assert check_site(tmp_path) == []
    page.write_text(GOOD + html)
    assert any(fault in each for each in check_site(tmp_path))


def test_formulas_become_mathml():
    convert = pytest.importorskip("latex2mathml.converter").convert
    formula = convert(r"\frac{QK^\top}{\sqrt{d_k}}", display="block")
    assert formula.startswith("<math") and "<mfrac>" in formula and "<msqrt>" in formula


def test_docstrings_become_lists_of_definitions():
    from docstrings import to_rst

    text = "First of `x` * y_.\n\nquery       (b,t)\nkey, value  one\n            more\n\n    a  b"
    assert to_rst(text) == (
        "First of ``x`` \\* y\\_.\n\n"
        "``query``\n    (b,t)\n``key``, ``value``\n    one\n    more\n\n"
        "::\n\n    a  b\n"
    )


def test_links_into_the_repository_lead_to_pages_or_files():
    from repository import shown_files, turn_links

    shown = shown_files(DOCS)
    page = DOCS / "guides" / "x.md"
    text = "[a](../../benchmarks/README.md#b) [c](../../train.py) [d](https://x.org) [e](#f)"
    expected = "[a](../measurements.md#b) [c](../../train.py) [d](https://x.org) [e](#f)"
    assert turn_links(text, page, page, shown) == expected
    origin = ROOT / "benchmarks" / "README.md"
    assert turn_links("[a](records/b.json)", origin, DOCS / "measurements.md", shown) == (
        "[a](../benchmarks/records/b.json)"
    )
    assert turn_links("```\n[a](b.md)\n```", origin, page, shown) == "```\n[a](b.md)\n```"
