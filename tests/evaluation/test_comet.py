"""COMET comes from a command, which is given the right texts and whose scores are read."""

import json
import sys

import pytest

from flax_transformer.config import Config
from flax_transformer.errors import UserError
from flax_transformer.evaluation.comet import comet_score
from flax_transformer.evaluation.evaluation import report_on
from flax_transformer.evaluation.measures import Measures

FAKE = """#!{python}
import json, sys
words = dict(zip(sys.argv[1:], sys.argv[2:]))
if words["--model"] == "absent":
    print("a warning", file=sys.stderr)
    sys.exit("absent is not a valid checkpoint path or model choice")
texts = [open(words[option]).read().splitlines() for option in ("-s", "-t", "-r")]
rows = [dict(src=s, mt=m, ref=r, COMET=float(m == r)) for s, m, r in zip(*texts)]
rows = rows[1:] if words["--model"] == "short" else rows
json.dump({{words["-t"]: rows}}, open(words["--to_json"], "w"))
json.dump([sys.argv[1:], texts], open({log!r}, "w"))
"""
"""Stands for the package's command, which downloads a model of two gigabytes."""


@pytest.fixture
def command(tmp_path):
    path = tmp_path / "comet-score"
    path.write_text(FAKE.format(python=sys.executable, log=str(tmp_path / "log")))
    path.chmod(0o755)
    return path


def test_the_command_gets_the_texts_and_its_scores_are_averaged(command, tmp_path):
    texts = (["a\rb", "ä", "c"], ["A B", "Ä", "x"], ["A B", "Ä", "C"])
    value, signature = comet_score(*texts, command=str(command), model="some-model")
    assert value == pytest.approx(100 * 2 / 3)
    assert signature == "model:some-model|refs:1"
    words, given = json.loads((tmp_path / "log").read_text())
    assert given == [["a b", "ä", "c"], *texts[1:]]
    assert words[words.index("--gpus") + 1] == "0"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("absent", r"(?s)failed with code 1 \(absent is not a valid .*choice\):\n.*--metrics$"),
        ("short", "has scored 0 sentences of 1"),
    ],
)
def test_a_command_that_fails_is_reported(command, model, message):
    with pytest.raises(UserError, match=message):
        comet_score(["a"], ["b"], ["b"], command=str(command), model=model)


def test_a_command_that_is_not_there_is_named_before_the_model_is_loaded(tmp_path):
    measures = Measures(metrics=(), comet_model="any", comet_command=str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"(?s)absent, which is not there:\n.*--comet-command"):
        report_on(tmp_path, Config(), [], measures=measures)
