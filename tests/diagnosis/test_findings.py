"""What a diagnosis says: each defect is named with its remedy, and a healthy run is left alone."""

import dataclasses
import inspect
import json
import re

import numpy as np
import pytest
from support.samples import recurrent

from flax_transformer.config import Config, OptimizerConfig, TrainingConfig
from flax_transformer.diagnosis import findings, layer_findings
from flax_transformer.diagnosis.attention_statistics import CROSS, AttentionStatistics
from flax_transformer.diagnosis.baselines import Baselines
from flax_transformer.diagnosis.diagnosis import as_record
from flax_transformer.diagnosis.figures import Figures, Losses, Rate
from flax_transformer.diagnosis.findings import find
from flax_transformer.diagnosis.norms import ModuleNorms
from flax_transformer.diagnosis.pair_figures import PairFigures
from flax_transformer.diagnosis.repetition import OutputFigures
from flax_transformer.diagnosis.report import describe

CONFIG = Config(training=TrainingConfig(steps=1000), optimizer=OptimizerConfig(warmup_steps=100))


def attention(entropy: float, first: float = 0.2, last: float = 0.2) -> dict:
    """One layer of four heads, of which the last looks at two places."""
    arrays = (np.array([[value, value, value, other]]) for value, other in
              ((entropy, 0.3), (first, 0.5), (last, 0.5)))  # fmt: skip
    return {CROSS: AttentionStatistics(*arrays)}


def every_head(entropy: float, first: float, last: float) -> dict:
    values = (np.full((2, 4), value) for value in (entropy, first, last))
    return {CROSS: AttentionStatistics(*values)}


def one_layer_of_two(name: str, entropy: float) -> dict:
    """The second layer's heads of attention `name` have `entropy`, beside a healthy attention."""
    entropies = np.array([[0.3, 0.01], [entropy, 0.01]])
    other = np.full((2, 2), 0.2)
    return attention(0.5) | {name: AttentionStatistics(entropies, other, other)}


HEALTHY = Figures(
    step=500,
    modules=[
        ModuleNorms("encoder layer 1: attention", 100, 0.5, 10.0, 0.01),
        ModuleNorms("decoder layer 1: attention", 100, 0.4, 10.0, 0.01),
        ModuleNorms("embedding: table", 1000, 0.6, 30.0, 0.02),
    ],
    attention=attention(0.5),
    losses=Losses(training=1.5, validation=1.6, shuffled=4.0),
    baselines=Baselines(uniform=7.6, unigram=5.5, bigram=3.5, smoothing_floor=1.1),
    outputs=OutputFigures(100, 0.01, 0.01, 0.0, 0.0, 0.01),
    rate=Rate(now=1e-3, peak=2e-3),
    pairs=PairFigures(1000, 0.95, 0.95, 0.01, 1.1, 0.001, 0.001),
)


def having(**changes) -> Figures:
    """`HEALTHY` with changes: whole fields, or some fields of a section."""
    for name, new in changes.items():
        if isinstance(new, dict) and name not in ("attention",):
            changes[name] = dataclasses.replace(getattr(HEALTHY, name), **new)
    return dataclasses.replace(HEALTHY, **changes)


def with_module(**changes) -> Figures:
    module = dataclasses.replace(HEALTHY.modules[1], **changes)
    return having(modules=[HEALTHY.modules[0], module, HEALTHY.modules[2]])


NAME = "decoder layer 1: attention"

DEFECTS = {
    "NaN": (with_module(gradient=np.nan, not_finite=[NAME]), "serious", f"numbers in {NAME}"),
    "dead": (with_module(without_gradient=[NAME]), "serious", f"{NAME} is exactly zero"),
    "vanishing": (with_module(gradient=1e-6), "warning", f"gradient of {NAME} is less than"),
    "exploding": (with_module(gradient=50.0), "warning", f"most of it in {NAME}"),
    "too fast": (with_module(update=5.0), "serious", "one update changes the parameters by 15"),
    "too slow": (
        having(modules=[dataclasses.replace(m, update=1e-9) for m in HEALTHY.modules]),
        "warning", "will take very long",
    ),
    "uniform": (having(attention=every_head(0.97, 0.1, 0.1)), "warning", "ignores the source"),
    "first token": (having(attention=every_head(0.01, 0.99, 0)), "warning", "first source token"),
    "last token": (having(attention=every_head(0.01, 0, 0.99)), "warning", "last source token"),
    "collapsed layer": (
        having(attention=one_layer_of_two("decoder self-attention", 0.02)),
        "warning", "one position only in layer 2 of decoder self-attention.",
    ),
    "diverged": (having(losses={"training": 9.0, "validation": 9.0, "shuffled": 9.9}),
                 "serious", "training has diverged"),
    "above unigram": (having(losses={"training": 6.0, "validation": 6.0, "shuffled": 9.9}),
                      "serious", "which words are frequent"),
    "above bigram": (having(losses={"training": 4.0, "validation": 4.0, "shuffled": 9.9}),
                     "warning", "previous word alone"),
    "source makes no difference": (having(losses={"shuffled": 1.61}), "serious", "mixed-up words"),
    "overfitting": (having(losses={"training": 0.5}), "warning", "by heart"),
    "identical": (having(outputs={"identical": 0.5}), "warning", "50% of the translations"),
    "loops": (having(outputs={"repeated": 0.4}), "warning", "the the the"),
    "empty": (having(outputs={"empty": 0.2}), "warning", "20% of the translations are empty"),
    "endless": (having(outputs={"too_long": 0.2}), "warning", "limit of length"),
    "copies": (having(pairs={"copies": 0.2}), "warning", "the target is the source"),
    "source bytes": (having(pairs={"source_bytes": 0.3}), "warning", "source tokens are single"),
    "target bytes": (having(pairs={"target_bytes": 0.3}), "warning", "target tokens are single"),
    "lengths": (having(pairs={"length_ratio": 5.0}), "warning", "5 target tokens per source token"),
    "empty slots": (having(pairs={"source_fill": 0.3}), "note", "only 30% of the slots"),
}  # fmt: skip


def text_of(figures: Figures, config: Config = CONFIG) -> str:
    found = find(config, figures)
    return re.sub(r"\s+", " ", " ".join(describe(config, figures, found)))


def test_healthy_run_says_so():
    assert find(CONFIG, HEALTHY) == []
    assert "Nothing looks wrong." in text_of(HEALTHY)


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_is_named(name):
    figures, severity, words = DEFECTS[name]
    (finding,) = find(CONFIG, figures)
    assert finding.severity == severity
    assert words in f"{finding.seen}. {finding.meaning}"
    assert bool(finding.remedy) == (severity != "note")
    text = text_of(figures)
    assert words in text and ("Nothing looks wrong." in text) == (severity == "note")


def test_most_serious_finding_stands_first():
    figures = having(outputs={"empty": 0.2}, pairs={"copies": 0.2, "source_fill": 0.3})
    figures = dataclasses.replace(figures, step=500, losses=Losses(3.0, 3.0, 3.0))
    severities = [finding.severity for finding in find(CONFIG, figures)]
    assert severities == ["serious", "warning", "warning", "note"]


def test_one_head_that_looks_somewhere_is_enough():
    assert find(CONFIG, having(attention=attention(0.99))) == []
    assert find(CONFIG, having(attention=attention(0.01, first=0.99))) == []
    assert find(CONFIG, having(attention=one_layer_of_two("encoder self-attention", 0.2))) == []


def test_uniform_attention_is_serious_where_the_source_makes_no_difference():
    figures = having(attention=every_head(0.97, 0.1, 0.1), losses={"shuffled": 1.6})
    assert [finding.severity for finding in find(CONFIG, figures)] == ["serious", "serious"]


def test_what_a_young_run_cannot_do_yet_is_a_note():
    figures = having(
        step=50,
        losses={"training": 7.0, "validation": 7.0, "shuffled": 7.0},
        outputs={"identical": 1.0, "repeated": 0.9, "too_long": 1.0},
    )
    found = find(CONFIG, figures)
    assert len(found) == 6 and {finding.severity for finding in found} == {"note"}
    assert "step 50 of 100 of the warm-up" in text_of(figures)
    assert "nothing is trained yet" in text_of(dataclasses.replace(figures, step=0))
    # But a loss worse than guessing is none of youth.
    diverged = having(step=50, losses={"training": 9.0, "validation": 9.0, "shuffled": 9.9})
    assert find(CONFIG, diverged)[0].severity == "serious"


def test_symptoms_of_a_diverged_run_are_left_out():
    losses = {"training": 9.0, "validation": 9.0, "shuffled": 9.0}
    figures = having(losses=losses, outputs={"identical": 1.0, "too_long": 1.0})
    figures = dataclasses.replace(figures, attention=every_head(0.97, 0.1, 0.1))
    (finding,) = find(CONFIG, figures)
    assert "diverged" in finding.meaning


def test_endless_warm_up_is_named():
    config = dataclasses.replace(CONFIG, training=TrainingConfig(steps=80))
    assert "the warm-up of 100 steps is longer than the run of 80" in text_of(HEALTHY, config)


def test_clipping_is_proposed_only_where_there_is_none():
    def remedy(clip_norm):
        optimizer = dataclasses.replace(CONFIG.optimizer, clip_norm=clip_norm)
        (finding,) = find(dataclasses.replace(CONFIG, optimizer=optimizer), DEFECTS["exploding"][0])
        return finding.remedy

    assert "--optimizer.clip-norm" in remedy(None) and "--optimizer.clip-norm" not in remedy(1.0)


def test_recurrent_models_get_advice_that_they_can_take():
    config = recurrent(CONFIG, "general")
    (uniform,) = find(config, DEFECTS["uniform"][0])
    assert "--model.norm" not in uniform.remedy and "--model.attention" in uniform.remedy
    (none,) = find(recurrent(CONFIG, "no attention"), having(attention={}))
    assert none.severity == "note" and "no attention" in none.seen


def test_record_is_json_whatever_the_numbers():
    broken = dataclasses.replace(DEFECTS["NaN"][0], rate=Rate(now=np.inf, peak=1.0))
    record = as_record(broken, find(CONFIG, broken))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["modules"][1]["gradient"] == "NaN" and record["rate"]["now"] == "Infinity"
    assert record["modules"][0]["ratio"] == 0.001
    assert record["attention"][CROSS]["entropy"] == [[0.5, 0.5, 0.5, 0.3]]
    assert record["findings"][0]["severity"] == "serious"


def test_flags_that_are_proposed_exist():
    words = inspect.getsource(findings) + inspect.getsource(layer_findings)
    flags = set(re.findall(r"--([a-z_]+)\.([a-z-]+)", words))
    assert len(flags) > 10
    models = {**vars(recurrent(CONFIG, "concat").model), **vars(CONFIG.model)}
    for section, name in flags:
        known = models if section == "model" else vars(getattr(CONFIG, section))
        assert name.replace("-", "_") in known, f"--{section}.{name}"
