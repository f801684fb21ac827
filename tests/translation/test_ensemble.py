"""An ensemble's probabilities are the mean of its models', and nothing else about it is special."""

import dataclasses
import itertools
import json
import math
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support.samples import recurrent
from support.states import save_untrained_run

import flax_transformer as ft
from flax_transformer.commands import evaluate, score, translate
from flax_transformer.config import Config, DecodingConfig
from flax_transformer.data.packing import lay_out
from flax_transformer.data.token_cache import TokenizedPairs
from flax_transformer.errors import UserError
from flax_transformer.models import build_model
from flax_transformer.models.ensemble import Ensemble
from flax_transformer.text.tokenizer import EOS_ID, UNK_ID
from flax_transformer.translation.pair_scores import token_log_probabilities
from flax_transformer.translation.search import search

LINES = ["the cat sees a red house", "we eat", "", "a cat"]
TEXTS = ["the cat sees a red house and we eat bread in big town", *LINES]
TINY = 8


@pytest.fixture(scope="module")
def tiny(small_config, random_params) -> list[tuple[Config, dict]]:
    """A Transformer and a recurrent model with five symbols of text, so that every sentence of up
    to three can be looked at; and a search that keeps as many."""
    decoding = DecodingConfig(beam_size=130, extra_length=1, length_penalty=0.6)
    found = []
    for config in (small_config, recurrent(small_config, "dot")):
        few = SimpleNamespace(model=config.model, tokenizer=SimpleNamespace(vocabulary_size=TINY))
        params = jax.tree.map(lambda leaf: 2 * leaf, random_params(few))
        found.append((dataclasses.replace(config, decoding=decoding), params))
    return found


def log_probabilities(config, params, source, targets) -> np.ndarray:
    """Of each token of each target after that source, by a full pass; 0 behind its end."""
    pairs = TokenizedPairs.of([source] * len(targets), targets)
    batch = lay_out(pairs, np.split(np.arange(len(pairs)), range(1, len(pairs))), 8, 8)
    model = build_model(config.model, TINY)
    found = token_log_probabilities(model, params, jax.device_put(batch))
    return np.where(batch.target_segments > 0, found, 0)


def test_a_search_finds_what_brute_force_finds(tiny):
    (first, _), _ = tiny
    symbols = range(UNK_ID, TINY)
    targets = [each for t in range(4) for each in itertools.product(symbols, repeat=t)]
    model = Ensemble([build_model(config.model, TINY) for config, _ in tiny])
    params = tuple(own for _, own in tiny)
    source = [5, 7]
    ids = np.array([[*source, EOS_ID]], np.int32)
    found = jax.jit(partial(search, model, first))(params, ids)
    singly = [log_probabilities(*one, source, targets) for one in tiny]
    totals = np.log(np.mean(np.exp(singly), axis=0)).sum(axis=1)
    lengths = np.array([len(each) + 1 for each in targets])
    expected = totals / ((5 + lengths) / 6) ** 0.6
    order = np.argsort(-expected)[:30]
    np.testing.assert_allclose(found.scores[0, :30], expected[order], rtol=1e-4)
    best = [
        np.array(row[: lengths[i] - 1]).tolist()
        for row, i in zip(found.ids[0], order, strict=False)
    ]
    assert best[:10] == [list(targets[i]) for i in order[:10]]
    alone = [each.sum(axis=1) / ((5 + lengths) / 6) ** 0.6 for each in singly]
    assert all(not np.allclose(each, expected, rtol=1e-2) for each in alone)


def save(workdir, config: Config, seed: int = 0, texts=TEXTS):
    workdir.mkdir()
    training = dataclasses.replace(config.training, seed=seed)
    save_untrained_run(workdir, dataclasses.replace(config, training=training), texts)
    return workdir


@pytest.fixture(scope="module")
def runs(quick, small_config, tmp_path_factory):
    """Work directories of two Transformers, a recurrent model, and one of another vocabulary."""
    folder = tmp_path_factory.mktemp("runs")
    decoding = DecodingConfig(beam_size=3, extra_length=3, length_penalty=0.0, batch_tokens=64)
    config = dataclasses.replace(small_config, decoding=decoding)
    return {
        "one": save(folder / "one", config),
        "two": save(folder / "two", config, seed=1),
        "recurrent": save(folder / "recurrent", recurrent(config, "concat")),
        "foreign": save(folder / "foreign", config, texts=["other words " * 9, *TEXTS]),
    }


def test_a_model_with_itself_is_the_model(runs):
    alone, both = ft.load(runs["one"]), ft.load([runs["one"], runs["one"]])
    for one, two in zip(alone.search(LINES), both.search(LINES), strict=True):
        assert [each.text for each in one] == [each.text for each in two]
        for first, second in zip(one, two, strict=True):
            assert first.score == pytest.approx(second.score, rel=1e-5)


def test_details_of_tokens_are_means(runs):
    both = ft.load([runs["one"], runs["recurrent"]])
    best = both.search(LINES[:1])[0][0]
    (details,) = both.token_details([best])
    assert math.fsum(details.log_probabilities) == pytest.approx(best.score, rel=1e-5)
    (joint,) = both.pair_scores(LINES[:1], ["we eat bread"])
    each = [
        ft.load(runs[name]).pair_scores(LINES[:1], ["we eat bread"])[0]
        for name in ("one", "recurrent")
    ]
    mean = np.log(np.mean(np.exp([one.log_probabilities for one in each]), axis=0))
    np.testing.assert_allclose(joint.log_probabilities, mean, rtol=1e-5)
    assert not np.allclose(each[0].log_probabilities, mean, rtol=1e-3)


def test_commands_take_ensembles(runs, tmp_path, capsys):
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in LINES))
    words = ["--workdir", str(runs["one"]), "--ensemble", str(runs["two"])]
    both = ft.load([runs["one"], runs["two"]])
    files = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    translate.main([*words, *files])
    assert (tmp_path / "out").read_text().splitlines() == both.translate(LINES)
    texts = ["--source", str(tmp_path / "in"), "--target", str(tmp_path / "in")]
    score.main([*words, *texts])
    expected = both.pair_scores(LINES, LINES)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{each.total:.4f}\t{len(each.tokens)}" for each in expected]
    texts[2] = "--reference"
    evaluate.main([*words, *texts, "--name", "both", "--metrics", "chrf"])
    record = json.loads((runs["one"] / "evaluation" / "both.json").read_text())
    assert record["ensemble_with"] == [str(runs["two"])]
    written = (runs["one"] / "evaluation" / "both.hypotheses.txt").read_text()
    assert written.splitlines() == both.translate(LINES)


def test_what_does_not_go_together_is_refused(runs, small_config, tmp_path):
    with pytest.raises(UserError, match=r"foreign has another vocabulary than .*one: only"):
        ft.load([runs["one"], runs["foreign"]])
    with pytest.raises(UserError, match="ensemble has no attention of its own"):
        ft.load([runs["one"], runs["two"]]).attention("a cat")
    learned = dataclasses.replace(small_config.model, positions="learned")
    save(tmp_path / "short", dataclasses.replace(small_config, model=learned))
    with pytest.raises(
        UserError, match=r"short has learned positions for shorter .*: name it first"
    ):
        ft.load([runs["one"], tmp_path / "short"])
    assert ft.load([tmp_path / "short", runs["one"]], beam_size=1).others == (runs["one"],)
