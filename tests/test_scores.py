"""Our scores are sacreBLEU's own, and the paper's measure is what its script computes."""

import io
import json
import random
import subprocess
import sys

import pytest
import sacrebleu

from flax_transformer.evaluation import scores as scores_module
from flax_transformer.evaluation.scores import bleu_only, score

WORDS = ["The", "cat", "sees", "a", "well-known", "house", ",", "and", "we", "eat", "bread", "12-3"]


def corpus(count: int) -> tuple[list[str], list[str]]:
    generator = random.Random(0)
    references = [" ".join(generator.choices(WORDS, k=12)) + "." for _ in range(count)]
    hypotheses = [
        " ".join(generator.choice(WORDS) if generator.random() < 0.2 else w for w in text.split())
        for text in references
    ]
    return hypotheses, references


def scores_of_the_command(directory, hypotheses, references, *options) -> list[float]:
    for name, texts in (("hypotheses", hypotheses), ("references", references)):
        (directory / name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    command = [
        sys.executable, "-m", "sacrebleu", str(directory / "references"),
        "-i", str(directory / "hypotheses"), "-m", "bleu", "chrf", "ter", "-w", "6", *options,
    ]  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [result["score"] for result in json.loads(output)]


def figures(scores: dict) -> list[float]:
    return [scores["bleu"], scores["chrf"], scores["ter"]]


def test_scores_are_those_of_the_sacrebleu_command(tmp_path):
    hypotheses, references = corpus(30)
    expected = scores_of_the_command(tmp_path, hypotheses, references)
    scores = score(hypotheses, references)
    assert figures(scores) == pytest.approx(expected, abs=1e-5)
    assert bleu_only(hypotheses, references) == scores["bleu"]
    assert all(5 < figure < 95 for figure in figures(scores))


def test_lower_case_and_tokenised_text(tmp_path):
    hypotheses, references = corpus(30)
    hypotheses = [text.upper() if i % 2 else text for i, text in enumerate(hypotheses)]
    expected = scores_of_the_command(
        tmp_path, hypotheses, references, "--lowercase", "--tokenize", "none"
    )
    scores = score(hypotheses, references, lowercase=True, tokenize="none")
    assert figures(scores) == pytest.approx(expected, abs=1e-5)
    assert "case:lc" in scores["bleu_signature"]
    assert "tok:none" in scores["bleu_signature"]
    # The command's flag is for BLEU, as ours.
    assert "case:mixed" in scores["chrf_signature"]
    plain = score(hypotheses, references)
    assert plain["bleu"] != scores["bleu"]
    assert plain["chrf"] == scores["chrf"]


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
