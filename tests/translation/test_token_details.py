"""The tokens of translations: as probable as the search found them, aligned as attention has it."""

import dataclasses
import json
import math

import numpy as np
import pytest
from support.samples import recurrent
from support.states import save_untrained_run

import flax_transformer as ft
from flax_transformer.commands import score, translate
from flax_transformer.config import DecodingConfig
from flax_transformer.inspection.attention import attend_ids
from flax_transformer.text.tokenizer import EOS_ID

LONG = "the cat sees a red house and we eat bread and a red house in the big town " * 2
LINES = ["the cat sees a red house", "we eat", "", LONG, "a cat"]
TEXTS = ["the cat sees a red house and we eat bread in big town", *LINES]


@pytest.fixture(scope="module", params=["transformer", "concat", "no attention"])
def model(request, quick, small_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / request.param
    workdir.mkdir()
    decoding = DecodingConfig(
        beam_size=3, extra_length=3, length_penalty=0.0, batch_tokens=64, max_source_length=16
    )
    config = dataclasses.replace(small_config, decoding=decoding)
    if request.param != "transformer":
        config = recurrent(config, request.param, num_decoder_layers=1)
    save_untrained_run(workdir, config, TEXTS)
    return ft.load(workdir)


@pytest.fixture(scope="module")
def found(model):
    """Hypotheses, each with what is said of its tokens."""
    hypotheses = [each for line in model.search(LINES) for each in line]
    assert len(hypotheses) > 9 and max(len(each.pairs) for each in hypotheses) > 2
    return list(zip(hypotheses, model.token_details(hypotheses), strict=True))


def test_log_probabilities_are_those_of_the_search_and_of_pairs(model, found):
    """Without a length penalty, a hypothesis' score is the log probability of its tokens; of a line
    that was cut, the sum over its pieces."""
    for hypothesis, details in found:
        total = math.fsum(details.log_probabilities)
        assert total == pytest.approx(hypothesis.score, rel=1e-5, abs=1e-6)
        assert len(details.tokens) == len(details.log_probabilities) == hypothesis.tokens
        for pair in hypothesis.pairs[:1] if len(hypothesis.pairs) == 1 else ():
            source, target = model.tokenizer.decode([pair.source, pair.target])
            (scored,) = model.pair_scores([source], [target])
            if scored.tokens == details.tokens:  # the search may spell a word in other pieces
                np.testing.assert_allclose(
                    scored.log_probabilities, details.log_probabilities, rtol=1e-4
                )


def test_alignments_are_where_the_last_layer_looks(model, found):
    for hypothesis, details in found:
        if not model.config.model.attends_to_source:
            assert details.alignment is None
            continue
        assert len(details.alignment) == len(details.tokens)
        start, places = 0, iter(details.alignment)
        for pair in hypothesis.pairs:
            ids = [[*side, EOS_ID] for side in pair]
            seen = attend_ids(model.config, model.params, model.tokenizer, *ids)
            weights = seen.cross[-1].mean(axis=0)
            assert details.source_tokens[start : start + len(ids[0])] == seen.source
            for row in weights:
                assert row[next(places) - start] == pytest.approx(row.max(), rel=1e-4)
            start += len(ids[0])
        assert start == len(details.source_tokens)


def test_a_blank_line_has_no_tokens(model, found):
    (details,) = (details for hypothesis, details in found if not hypothesis.pairs)
    assert details[:3] == ((), (), ())
    assert details.alignment == (() if model.config.model.attends_to_source else None)
    assert model.token_details([]) == []


def test_the_command_writes_objects_that_score_puts_in_the_same_order(
    model, found, tmp_path, capsys
):
    """With the whole weight, the model's own scores are those of its search."""
    lines = [LINES[0], LINES[1], LINES[4]]
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in lines))
    files = ["--workdir", str(model.workdir), "--output-format", "jsonl"]
    named = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "list")]
    translate.main([*files, *named, "--n-best", "3"])
    written = [json.loads(line) for line in (tmp_path / "list").read_text().splitlines()]
    assert [one["line"] for one in written] == [1, 2, 3]
    by_text = {(hypothesis.text, details.source_tokens): details for hypothesis, details in found}
    for line, one in zip(lines, written, strict=True):
        best, *others = model.search([line])[0]
        assert [each["translation"] for each in one["alternatives"]] == [o.text for o in others]
        details = by_text[best.text, tuple(one["source_tokens"])]
        assert one["translation"] == best.text and tuple(one["tokens"]) == details.tokens
        assert one["score"] == pytest.approx(best.score, abs=1e-4)
        assert one["log_probabilities"] == pytest.approx(details.log_probabilities, abs=1e-4)
        assert one["alignment"] == (details.alignment and list(details.alignment))
    capsys.readouterr()
    listed = ["--source", str(tmp_path / "in"), "--n-best", str(tmp_path / "list")]
    score.main([*files, *listed, "--weight", "1"])
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for one, other in zip(written, again, strict=True):
        if one["tokens"] == other["tokens"]:
            assert other["translation"] == one["translation"]
            assert other["score"] == pytest.approx(one["score"], abs=1e-3)
    translate.main([*files, *named])
    assert "alternatives" not in json.loads((tmp_path / "list").read_text().splitlines()[0])


def test_a_tag_is_a_source_token(quick, small_config, tmp_path, capsys):
    size = dataclasses.replace(small_config.tokenizer, vocabulary_size=305)
    decoding = DecodingConfig(beam_size=2, extra_length=3, length_penalty=0.0)
    config = dataclasses.replace(small_config, tokenizer=size, decoding=decoding)
    save_untrained_run(tmp_path, config, TEXTS, tags=["<bt>"])
    model = ft.load(tmp_path)
    for tag in ("<bt>", ""):
        best, *_ = model.search(["a cat"], tags=[tag])[0]
        (details,) = model.token_details([best])
        assert (details.source_tokens[0] == "<bt>") == bool(tag)
        (scored,) = model.pair_scores(["a cat"], [best.text], tags=[tag])
        (other,) = model.pair_scores(["a cat"], [best.text], tags=["" if tag else "<bt>"])
        assert sum(details.log_probabilities) == pytest.approx(best.score, rel=1e-4)
        assert scored.total != pytest.approx(other.total, rel=1e-4)
        if scored.tokens == details.tokens:
            assert scored.total == pytest.approx(best.score, rel=1e-4)
        (tmp_path / "source").write_text("a cat\n")
        (tmp_path / "target").write_text(f"{best.text}\n")
        files = ["--source", str(tmp_path / "source"), "--target", str(tmp_path / "target")]
        score.main(["--workdir", str(tmp_path), *files, "--tag", tag])
        assert capsys.readouterr().out == f"{scored.total:.4f}\t{len(scored.tokens)}\n"
