"""What docs/reliability.md promises is held by tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.split("\n") if re.match(r"\| (?!fault|code|-)", line)]
ROWS = [row for row in ROWS if "`test_" in row]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_each_promise_names_tests_that_exist(row):
    file = ""
    found = re.findall(r"`(test_\w+\.py)?(?:::(\w+))?`", row.rsplit("|", 2)[1])
    assert found
    for named, test in found:
        file = named or file
        (path,) = (ROOT / "tests").rglob(file)
        content = path.read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test}\(", content, re.MULTILINE), test


def test_there_are_rows():
    assert len(ROWS) > 40
