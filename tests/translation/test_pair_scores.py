"""Log probabilities of given pairs: those of the search, whatever stands beside them."""

import dataclasses
import json
import math
from functools import partial

import jax
import numpy as np
import pytest
from support.samples import recurrent
from support.states import save_untrained_run

import flax_transformer as ft
from flax_transformer.commands import score
from flax_transformer.config import DecodingConfig
from flax_transformer.data.packing import lay_out
from flax_transformer.data.token_cache import TokenizedPairs
from flax_transformer.errors import UserError
from flax_transformer.text.tokenizer import EOS_ID, PAD_ID
from flax_transformer.translation.pair_scores import token_log_probabilities
from flax_transformer.translation.search import search

LINES = ["the cat sees a red house", "we eat", "a cat", "", "bread and a red house in the big"]
TEXTS = ["the cat sees a red house and we eat bread in big", *LINES]


@pytest.fixture(scope="module", params=["transformer", "recurrent"])
def model(request, quick, small_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / request.param
    workdir.mkdir()
    decoding = DecodingConfig(
        beam_size=3, extra_length=3, length_penalty=0.0, batch_tokens=64, max_source_length=32
    )
    config = dataclasses.replace(small_config, decoding=decoding)
    if request.param == "recurrent":
        config = recurrent(config, "concat", num_decoder_layers=1)
    save_untrained_run(workdir, config, TEXTS)
    return ft.load(workdir)


def test_scores_are_those_of_the_search(model):
    """Without a length penalty, a hypothesis' score is the log probability of its tokens."""
    sources = model.tokenizer.encode([line for line in LINES if line])
    ids = np.full((len(sources), 32), PAD_ID, np.int32)
    for row, source in zip(ids, sources, strict=True):
        row[: len(source) + 1] = [*source, EOS_ID]
    found = jax.jit(partial(search, model.module, model.config))(model.params, ids)
    targets = [
        row[row != PAD_ID][:-1].tolist()
        for row in np.array(found.ids).reshape(-1, found.ids.shape[2])
    ]
    repeated = [source for source in sources for _ in range(3)]
    pairs = TokenizedPairs.of(repeated, targets)
    rows = np.split(np.arange(len(repeated)), range(1, len(repeated)))
    batch = lay_out(pairs, rows, 32, 48)
    scores = np.array(token_log_probabilities(model.module, model.params, batch))
    sums = np.where(batch.target_segments > 0, scores, 0).sum(axis=1)
    np.testing.assert_allclose(sums, np.ravel(found.scores), rtol=1e-5)
    assert len(set(np.round(sums, 3))) > len(sources)


def test_neighbours_and_order_do_not_count(model):
    """Batches of 64 tokens hold two to four pairs, of different lengths."""
    targets = [*LINES[1:], LINES[0]]
    together = model.pair_scores(LINES, targets)
    for line, target, one in zip(LINES, targets, together, strict=True):
        (alone,) = model.pair_scores([line], [target])
        assert alone.tokens == one.tokens
        np.testing.assert_allclose(alone.log_probabilities, one.log_probabilities, rtol=1e-5)
    assert model.pair_scores([], []) == []
    with pytest.raises(UserError, match="5 sources and 1 targets"):
        model.pair_scores(LINES, ["a"])


def test_learned_positions_have_an_end(quick, small_config, tmp_path):
    learned = dataclasses.replace(small_config.model, positions="learned")
    save_untrained_run(tmp_path, dataclasses.replace(small_config, model=learned), TEXTS)
    model = ft.load(tmp_path)
    with pytest.raises(UserError, match=r"target 2 has .* tokens with its end symbol, .* for 16"):
        model.pair_scores(["a", "a"], ["a", "the cat sees " * 9])


@pytest.fixture
def files(model, tmp_path):
    source, target = tmp_path / "in.en", tmp_path / "in.fr"
    source.write_text("a cat\nwe eat\n")
    target.write_text("the cat\nbread\n")
    return ["--workdir", str(model.workdir), "--source", str(source)], target


def test_the_command_writes_a_line_for_each_pair(files, model, capsys, tmp_path):
    words, target = files
    score.main([*words, "--target", str(target)])
    said = capsys.readouterr()
    expected = model.pair_scores(["a cat", "we eat"], ["the cat", "bread"])
    assert said.out == "".join(f"{each.total:.4f}\t{len(each.tokens)}\n" for each in expected)
    tokens = sum(len(each.tokens) for each in expected)
    perplexity = math.exp(-sum(each.total for each in expected) / tokens)
    assert f"2 pairs, {tokens} tokens" in said.err and f"perplexity {perplexity:.3f}" in said.err
    output = tmp_path / "scores.jsonl"
    score.main(
        [*words, "--target", str(target), "--output-format", "jsonl", "--output", str(output)]
    )
    first, _ = map(json.loads, output.read_text().splitlines())
    assert tuple(first["tokens"]) == expected[0].tokens
    assert first["log_probability"] == pytest.approx(expected[0].total, abs=1e-4)
    assert sum(first["log_probabilities"]) == pytest.approx(expected[0].total, abs=1e-3)


def test_a_list_of_candidates_gets_a_score_more(files, model, capsys):
    words, target = files
    target.write_text("2 ||| bread ||| -1.5\n1 ||| the cat ||| -2.0\n2 ||| we eat ||| -3.0\n")
    score.main([*words, "--n-best", str(target)])
    lines = capsys.readouterr().out.splitlines()
    expected = model.pair_scores(["we eat", "a cat", "we eat"], ["bread", "the cat", "we eat"])
    assert lines == [
        f"{line} ||| {one.total:.4f}"
        for line, one in zip(target.read_text().splitlines(), expected, strict=True)
    ]


def ranked_by_hand(model, weight: float, length_penalty: float) -> list[tuple[int, str, float]]:
    """The list of the test below: (line, text, score), lines in order and the best first."""
    given = [(1, "the cat", -0.2), (1, "bread", -0.1), (2, "we eat", -3.0), (2, "bread", -1.5)]
    found = []
    for line, text, before in given:
        (one,) = model.pair_scores([["a cat", "we eat"][line - 1]], [text])
        own = one.total / ((5 + len(one.tokens)) / 6) ** length_penalty
        found.append((line, text, (1 - weight) * before + weight * own))
    return sorted(found, key=lambda each: (each[0], -each[2]))


LISTS = {
    "text": "2 ||| we eat ||| -3.0\n1 ||| the cat ||| -0.2 ||| 7\n1 ||| bread ||| -0.1\n"
    "2 ||| bread ||| -1.5\n",
    "jsonl": '{"translation": "the cat", "score": -0.2, "alternatives": [{"translation": "bread", '
    '"score": -0.1}]}\n'
    '{"translation": "we eat", "score": -3, "alternatives": [{"translation": "bread", '
    '"score": -1.5}]}\n',
}


@pytest.mark.parametrize("written", ["text", "jsonl"])
@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
def test_a_list_is_put_in_order(files, model, capsys, written, weight):
    """With weight 0 as the list's scores have it, with 1 as a search of this model would."""
    words, target = files
    target.write_text(LISTS[written])
    words = [*words, "--n-best", str(target), "--weight", str(weight), "--length-penalty", "0.6"]
    expected = ranked_by_hand(model, weight, 0.6)
    score.main(words)
    lines = [line.split(" ||| ") for line in capsys.readouterr().out.splitlines()]
    assert [(int(line), text) for line, text, _ in lines] == [each[:2] for each in expected]
    scores = [float(each) for _, _, each in lines]
    assert scores == pytest.approx([each for _, _, each in expected], abs=2e-4)
    score.main([*words, "--output-format", "jsonl"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    flat = [(one["line"], each) for one in found for each in (one, *one["alternatives"])]
    assert [(line, each["translation"]) for line, each in flat] == [each[:2] for each in expected]
    for line, each in flat:
        (one,) = model.pair_scores([["a cat", "we eat"][line - 1]], [each["translation"]])
        assert tuple(each["tokens"]) == one.tokens
        assert sum(each["log_probabilities"]) == pytest.approx(one.total, abs=1e-3)


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--target", "one\n", "in.en has 2 lines and .*in.fr 1: give one translation"),
        ("--n-best", "1 ||| a\nbread\n", "in.fr line 2 is no .*translate --n-best"),
        ("--n-best", "3 ||| a\n", "in.fr line 1 is of line 3, but the source has 2 lines"),
        ("--n-best", "0 ||| a\n", "in.fr line 1 is of line 0, but"),
        ("--n-best", '{"translation": "a"}\n', "in.fr is of JSON, which --weight"),
    ],
)
def test_files_that_do_not_belong_together(files, option, text, message):
    words, target = files
    target.write_text(text)
    with pytest.raises(UserError, match=message):
        score.main([*words, option, str(target)])


@pytest.mark.parametrize(
    ("weight", "text", "message"),
    [
        ("2", "1 ||| a ||| 0\n", "--weight is 2.0, but is a share"),
        ("0.5", "1 ||| a\n", "in.fr has no score for 'a' of line 1: put one"),
        ("0.5", "1 ||| a ||| LM= -1\n", "in.fr has no score for 'a'"),
        ("0.5", '{"translation": "a"}\n', "in.fr has no score for 'a'"),
        ("0.5", '{"text": "a"}\n', 'in.fr line 1 is no object with a "translation"'),
        ("0.5", '{"translation": 3}\n', "in.fr line 1 has a translation that is no text"),
        ("0.5", '{"translation": "a", "alternatives": 3}\n', "in.fr line 1 is no object"),
        ("0.5", '{"translation": "a"\n', "in.fr line 1 is no object"),
    ],
)
def test_a_list_that_cannot_be_put_in_order(files, weight, text, message):
    words, target = files
    target.write_text(text)
    with pytest.raises(UserError, match=message):
        score.main([*words, "--n-best", str(target), "--weight", weight])


def test_one_of_target_and_n_best(files):
    words, target = files
    for both in ([], ["--target", str(target), "--n-best", str(target)]):
        with pytest.raises(UserError, match="give either --target or --n-best"):
            score.main([*words, *both])
    with pytest.raises(UserError, match="leave out --output-format jsonl"):
        score.main([*words, "--n-best", str(target), "--output-format", "jsonl"])
    with pytest.raises(UserError, match=r"--weight is 0\.5, but there is no list"):
        score.main([*words, "--target", str(target), "--weight", "0.5"])
