"""Minimum Bayes risk is what a direct calculation over all pairs of samples gives."""

import dataclasses
import json
import random

import numpy as np
import pytest
import sacrebleu
from support.states import save_untrained_run

import flax_transformer as ft
from flax_transformer.commands import evaluate, translate
from flax_transformer.config import Config, DecodingConfig
from flax_transformer.errors import UserError
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.translation.minimum_risk import rank_by_risk, sampling_config

WORDS = ["the", "old", "red", "cat", "sees", "a", "house"]
LINES = ["the cat sees a red house", "", "a cat"]


def draw_samples(seed: int) -> list[Hypothesis]:
    """Twelve, of which some are equal, and two pairs are so but for their score."""
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(8)]
    texts += [texts[0], texts[3], texts[0], ""]
    draw.shuffle(texts)
    return [Hypothesis(text, -float(i), i) for i, text in enumerate(texts)]


def mean_utilities(texts: list[str], metric: str) -> list[float]:
    """Of each sample with every other one for its reference, one after the other."""
    functions = {
        "chrf": lambda text, other: sacrebleu.sentence_chrf(text, [other]).score,
        "bleu": lambda text, other: sacrebleu.sentence_bleu(text, [other]).score,
    }
    return [
        float(np.mean([functions[metric](one, two) for j, two in enumerate(texts) if j != i]))
        for i, one in enumerate(texts)
    ]


@pytest.mark.parametrize("metric", ["chrf", "bleu"])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_direct_calculation(metric, seed):
    samples = draw_samples(seed)
    expected = mean_utilities([each.text for each in samples], metric)
    found = rank_by_risk(samples, metric)
    assert len({each.text for each in found}) == len(found) == len({s.text for s in samples})
    for each in found:
        first = next(i for i, sample in enumerate(samples) if sample.text == each.text)
        assert each.tokens == samples[first].tokens
        assert each.score == pytest.approx(expected[first], abs=1e-9)
    assert found[0].score == pytest.approx(max(expected))
    assert [each.score for each in found] == sorted((e.score for e in found), reverse=True)


def test_ties_and_single_samples():
    (same,) = rank_by_risk([Hypothesis("a b", -1.0, 3)] * 3, "chrf")
    assert same == Hypothesis("a b", pytest.approx(100.0), 3)
    assert rank_by_risk([Hypothesis("", 0.0, 0)], "bleu") == [Hypothesis("", 0.0, 0)]
    two = [Hypothesis("xyz", -1.0, 1), Hypothesis("abc", -2.0, 1)]
    assert [each.text for each in rank_by_risk(two, "chrf")] == ["xyz", "abc"]


def test_more_samples_take_no_more_memory():
    config = Config(decoding=DecodingConfig(beam_size=4, batch_tokens=4096))
    decoding = sampling_config(config, 32).decoding
    assert decoding.sampling and decoding.beam_size == 32 and decoding.batch_tokens == 512
    assert sampling_config(config, 2).decoding.batch_tokens == 4096
    with pytest.raises(UserError, match="--mbr is 1, but each sample is compared"):
        sampling_config(config, 1)


def test_commands_and_python_choose_among_samples(quick, small_config, tmp_path):
    decoding = DecodingConfig(beam_size=2, extra_length=3, batch_tokens=64)
    config = dataclasses.replace(small_config, decoding=decoding)
    save_untrained_run(tmp_path, config, ["the cat sees a red house in big town", *LINES])
    samples = ft.load(tmp_path, sampling=True, beam_size=6, seed=3).search(LINES)
    wanted = [rank_by_risk(each, "bleu") for each in samples]
    model = ft.load(tmp_path, sampling=True, seed=3, mbr=6, mbr_metric="bleu")
    assert model.search(LINES) == wanted
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in LINES))
    words = ["--workdir", str(tmp_path), "--sampling", "--seed", "3", "--mbr", "6"]
    words += ["--mbr-metric", "bleu"]
    files = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    translate.main([*words, *files])
    best = [each[0].text for each in wanted]
    assert (tmp_path / "out").read_text() == "".join(f"{text}\n" for text in best)
    texts = ["--source", str(tmp_path / "in"), "--reference", str(tmp_path / "in")]
    evaluate.main([*words, *texts, "--metrics", "chrf", "--name", "risk"])
    written = (tmp_path / "evaluation" / "risk.hypotheses.txt").read_text()
    assert written == (tmp_path / "out").read_text()
    assert json.loads((tmp_path / "evaluation" / "risk.json").read_text())["mbr_metric"] == "bleu"
