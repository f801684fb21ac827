"""Tests of significance are sacreBLEU's, and say what they should of systems known to differ."""

import random
from types import SimpleNamespace

import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from flax_transformer.config import Config
from flax_transformer.evaluation import report
from flax_transformer.evaluation.evaluation import evaluate
from flax_transformer.evaluation.measures import Measures
from flax_transformer.evaluation.scores import score
from flax_transformer.evaluation.significance import compare
from flax_transformer.translation.translator import Counts

WORDS = [
    "the",
    "old",
    "red",
    "cat",
    "sees",
    "a",
    "house",
    "and",
    "we",
    "eat",
    "bread",
    "in",
    "town",
]


def texts(count: int = 60) -> tuple[list[str], list[str], list[str], list[str]]:
    """References, two systems of which the second errs more, and other references."""
    draw = random.Random(0)
    references = [" ".join(draw.choices(WORDS, k=9)) for _ in range(count)]

    def err(rate: float) -> list[str]:
        return [
            " ".join(draw.choice(WORDS) if draw.random() < rate else word for word in text.split())
            for text in references
        ]

    return references, err(0.1), err(0.5), err(0.2)


REFERENCES, GOOD, BAD, OTHERS = texts()


def test_p_is_that_of_sacrebleu():
    found = compare(
        GOOD, BAD, [REFERENCES, OTHERS], metrics=("bleu", "chrf"), lowercase=True, tokenize="intl"
    )
    systems = [("baseline", BAD), ("system", GOOD)]
    for test, code in (("bootstrap", "bs"), ("randomisation", "ar")):
        metrics = {"BLEU": BLEU(lowercase=True, tokenize="intl"), "chrF": CHRF()}
        signatures, results = PairedTest(systems, metrics, [REFERENCES, OTHERS], test_type=code)()
        for name, title in (("bleu", "BLEU"), ("chrf", "chrF2")):
            before, after = results[title]
            assert found[name]["score"] == before.score < after.score
            assert found[name][f"{test}_p"] == after.p_value
            assert found[name][f"{test}_signature"] == str(signatures[title])
    assert "nrefs:2" in found["bleu"]["bootstrap_signature"]


def test_only_systems_that_differ_do_so_significantly():
    def p_of(system: list[str], baseline: list[str]) -> list[float]:
        one = compare(system, baseline, [REFERENCES], metrics=("bleu",))["bleu"]
        return [one["bootstrap_p"], one["randomisation_p"]]

    assert max(p_of(GOOD, BAD)) < 0.01
    # Two halves of one system's errors, dealt out to two systems, differ by chance alone.
    pairs = zip(GOOD, OTHERS, strict=True)
    dealt = [(a, b) if place % 2 else (b, a) for place, (a, b) in enumerate(pairs)]
    assert min(p_of([a for a, _ in dealt], [b for _, b in dealt])) > 0.05
    assert p_of(GOOD, GOOD) == [1.0, 1.0]


@pytest.mark.parametrize("extra", [(), (OTHERS,)])
def test_confidence_and_several_references_are_sacrebleus(extra):
    streams = [REFERENCES, *extra]
    metrics = {"bleu": BLEU(), "chrf": CHRF(), "ter": TER()}
    plain = score(GOOD, REFERENCES, extra_references=extra, processes=2)
    found = score(GOOD, REFERENCES, extra_references=extra, confidence=True)
    for name, metric in metrics.items():
        expected = metric.corpus_score(GOOD, streams)
        assert plain[name] == pytest.approx(expected.score)
        assert plain[f"{name}_signature"] == str(metric.get_signature())
        expected = metric.corpus_score(GOOD, streams, n_bootstrap=1000)
        assert found[name] == pytest.approx(plain[name])
        assert found[f"{name}_confidence"] == expected._ci > 0
        assert found[f"{name}_mean"] == expected._mean
        assert found[f"{name}_signature"] == str(metric.get_signature())
    assert f"nrefs:{len(streams)}|bs:1000" in found["bleu_signature"]


def test_a_report_shows_all_of_it():
    model = SimpleNamespace(
        translator=SimpleNamespace(counts=Counts()), steps=[7], choice="latest",
        config=Config(), others=(), risk_metric=None,
        progress=SimpleNamespace(data_changes=()), translate=lambda lines, progress: GOOD,
    )  # fmt: skip
    test_set = report.TestSet(
        name="news", origin={}, sources=REFERENCES, references=REFERENCES, baseline=BAD,
        extra_references=[OTHERS],
    )  # fmt: skip
    measures = Measures(metrics=("bleu", "chrf"), confidence=True, by_length=True)
    hypotheses, record = evaluate(model, test_set, measures, "13a")
    expected = sacrebleu.corpus_bleu(GOOD, [REFERENCES, OTHERS]).score
    first, *others = record["bleu_by_source_length"]
    assert record["bleu"] == pytest.approx(expected)
    assert first == {"words": "1-10", "sentences": 60, "bleu": pytest.approx(expected)}
    assert all(one["bleu"] is None for one in others)
    lines = report.summary(test_set, record, hypotheses, samples=0).splitlines()
    bleu, chrf = record["baseline"]["bleu"], record["baseline"]["chrf"]
    shown = [
        f"BLEU {record['bleu']:.2f} ± {record['bleu_confidence']:.2f} {record['bleu_signature']}",
        f"chrF {record['chrf']:.2f} ± {record['chrf_confidence']:.2f} {record['chrf_signature']}",
        f"BLEU {record['bleu'] - bleu['score']:+.2f} against the baseline's {bleu['score']:.2f}: "
        f"p {bleu['bootstrap_p']:.4f} by bootstrap, {bleu['randomisation_p']:.4f} by randomisation",
        f"chrF {record['chrf'] - chrf['score']:+.2f} against the baseline's {chrf['score']:.2f}: "
        f"p {chrf['bootstrap_p']:.4f} by bootstrap, {chrf['randomisation_p']:.4f} by randomisation",
        f"BLEU {expected:.2f} 60 sources of 1-10 words",
        "BLEU - 0 sources of 11-20 words",
    ]
    assert [" ".join(line.split()) for line in lines][1:7] == shown
