"""Our scores are sacreBLEU's own, and the paper's measure is what its script computes."""

import io
import itertools
import json
import os
import random
import signal
import sys
import warnings
from types import SimpleNamespace

import pytest
import sacrebleu

from flax_transformer.config import Config
from flax_transformer.evaluation import report
from flax_transformer.evaluation import scores as scores_module
from flax_transformer.evaluation.evaluation import evaluate
from flax_transformer.evaluation.measures import Measures
from flax_transformer.evaluation.scores import bleu_only, score
from flax_transformer.evaluation.significance import compare
from flax_transformer.translation.translator import Counts

DIGITS = 10
TOKENIZERS = ("13a", "intl", "char", "zh", "none")

WORDS = ["The", "cat", "sees", "a", "well-known", "house", ",", "and", "we", "eat", "bread", "12-3"]


def corpus(count: int) -> tuple[list[str], list[str]]:
    generator = random.Random(0)
    references = [" ".join(generator.choices(WORDS, k=12)) + "." for _ in range(count)]
    hypotheses = [
        " ".join(generator.choice(WORDS) if generator.random() < 0.2 else w for w in text.split())
        for text in references
    ]
    return hypotheses, references


TEXTS = [
    ("The CAT sees a well-known house, and we eat.", "The cat saw a well-known house; we ate."),
    ("Il a dit : « C’est l’été… » — n’est-ce pas ?", "Il a dit: «C’est l’été…» – n’est-ce pas?"),
    ("我们 今天吃面包，明天去北京。", "我们今天吃了面包,明天去上海。"),
    ("ÄRGER kostet 1,234.50 € (oder $3.99)", "Ärger kostet 1.234,50 € (oder 3.99 $)  "),
    ("", "Nothing was written here."),
    ("two  spaces &amp; a\ttab 🙂 at 10:30 p.m.", "Two spaces &amp; a tab 🙂🙂 at 10.30 p.m."),
]  # fmt: skip
"""Translations and references in which every way of splitting words finds others."""


def run_sacrebleu(folder, hypotheses, references, *options) -> dict[str, dict]:
    """What `python -m sacrebleu` prints of files with these lines, by metric.

    Its own main function runs in this process, which spares a second of imports each time.
    """
    for name, texts in (("hypotheses", hypotheses), ("references", references)):
        (folder / name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    words = [
        "sacrebleu", str(folder / "references"), "-i", str(folder / "hypotheses"),
        "-m", "bleu", "chrf", "ter", "--width", str(DIGITS), "--quiet", *options,
    ]  # fmt: skip
    printed = folder / "printed"
    # It opens its standard streams anew, by their descriptors.
    descriptors = {
        "stdin": os.open(os.devnull, os.O_RDONLY),
        "stdout": os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    }
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it does not close the files
        patch.setenv("NO_COLOR", "1")
        patch.setattr(sys, "argv", words)
        for name, descriptor in descriptors.items():
            patch.setattr(sys, name, SimpleNamespace(fileno=lambda number=descriptor: number))
        _sacrebleu_command()()
        sys.stdin.close()
        sys.stdout.close()
    names = {"BLEU": "bleu", "chrF2": "chrf", "TER": "ter"}
    results = json.loads(printed.read_text(encoding="utf-8"))
    return {names[each["name"]]: each for each in results}


def _sacrebleu_command():
    """Its module, loaded, has whoever writes to a pipe without a reader end without a word."""
    before = signal.getsignal(signal.SIGPIPE)
    from sacrebleu.sacrebleu import main

    signal.signal(signal.SIGPIPE, before)
    return main


def require_equal(scores: dict, expected: dict[str, dict]) -> None:
    """All printed digits, and the signatures."""
    for name, result in expected.items():
        assert round(scores[name], DIGITS) == result["score"], name
        assert scores[f"{name}_signature"] == result["signature"]


@pytest.mark.parametrize("tokenize", TOKENIZERS)
@pytest.mark.parametrize("lowercase", [False, True])
def test_scores_are_those_of_the_sacrebleu_command(tokenize, lowercase, tmp_path):
    hypotheses, references = zip(*TEXTS, strict=True)
    options = ["--tokenize", tokenize, *(["--lowercase"] if lowercase else [])]
    expected = run_sacrebleu(tmp_path, hypotheses, references, *options)
    scores = score(hypotheses, references, lowercase=lowercase, tokenize=tokenize)
    require_equal(scores, expected)
    assert all(1 < scores[name] < 99 for name in ("bleu", "chrf", "ter"))
    # The command's flag is for BLEU, as ours.
    assert "case:mixed" in scores["chrf_signature"]


def test_no_score_is_above_100():
    """sacreBLEU's BLEU of a text against itself is 100.00000000000004."""
    texts = ["The cat sees a well-known house.", "We eat bread in the old house."]
    assert sacrebleu.corpus_bleu(texts, [texts]).score > 100
    found = score(texts, texts, metrics=("bleu", "chrf"), confidence=True)
    assert found["bleu"] == found["bleu_mean"] == found["chrf"] == found["chrf_mean"] == 100
    assert bleu_only(texts, texts) == 100
    compared = compare(texts, texts, [texts], metrics=("bleu",))
    assert compared["bleu"]["score"] == 100
    assert score(["a b c d e f"], ["x"], metrics=("ter",))["ter"] == 600


def test_every_way_to_count_counts_something_else():
    """So that the scores of the command tell them apart."""
    hypotheses, references = zip(*TEXTS, strict=True)
    ways = itertools.product(TOKENIZERS, (False, True))
    found = [
        score(hypotheses, references, metrics=["bleu"], tokenize=tokenize, lowercase=lowercase)
        for tokenize, lowercase in ways
    ]
    assert len({scores["bleu"] for scores in found}) == len(found) == 10


def test_the_record_of_an_evaluation_has_the_commands_scores(tmp_path):
    """evaluation/<name>.json, of more lines than TER takes at a time."""
    hypotheses, references = corpus(30)
    model = SimpleNamespace(
        translator=SimpleNamespace(counts=Counts()), steps=[7], choice="latest",
        config=Config(), others=(), risk_metric=None,
        progress=SimpleNamespace(data_changes=()),
        translate=lambda lines, progress: hypotheses,
    )  # fmt: skip
    test_set = report.TestSet(name="news", origin={}, sources=references, references=references)
    texts, record = evaluate(model, test_set, Measures(lowercase=True), "intl")
    report.make_room(tmp_path, [test_set])
    report.write_report(tmp_path, test_set, record, texts)
    written = json.loads(report.report_path(tmp_path, test_set).read_text(encoding="utf-8"))
    expected = run_sacrebleu(tmp_path, hypotheses, references, "--lowercase", "--tokenize", "intl")
    require_equal(written, expected)
    plain = score(hypotheses, references)
    assert bleu_only(hypotheses, references) == plain["bleu"] != written["bleu"]


@pytest.mark.parametrize("metrics", [("bleu",), ("chrf", "bleu"), ("ter",)])
def test_only_what_is_asked_for_is_computed(metrics, monkeypatch):
    hypotheses, references = corpus(3)
    for name in {"bleu", "chrf", "ter"} - {*metrics}:
        monkeypatch.delattr(scores_module, name.upper())
    found = score(hypotheses, references, metrics=metrics)
    assert found.keys() == {*metrics, *(f"{name}_signature" for name in metrics)}


def test_several_processes_count_the_same_ter():
    hypotheses, references = corpus(205)
    one = score(hypotheses, references)
    two = score(hypotheses, references, processes=2)
    assert two == one
    whole = sacrebleu.metrics.TER()
    assert one["ter"] == pytest.approx(whole.corpus_score(hypotheses, [references]).score)
    assert one["ter_signature"] == str(whole.get_signature())


def test_what_takes_long_shows_how_far_it_is(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    hypotheses, references = corpus(8)
    monkeypatch.setattr(scores_module, "_SECONDS_BEFORE_A_BAR", 0)
    score(hypotheses, references, progress="news")
    assert "news: TER" in terminal.getvalue() and "/8 " in terminal.getvalue()
    shown = len(terminal.getvalue())
    score(hypotheses, references)
    assert len(terminal.getvalue()) == shown
