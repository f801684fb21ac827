"""What the explorer is told of a sentence, by a tiny model; and the file that is written of it."""

import base64
import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from flax_transformer.config import Config, DecodingConfig, MeshConfig
from flax_transformer.errors import UserError
from flax_transformer.inspection import sentence as sentence_module
from flax_transformer.inspection.attention import Attention, attend
from flax_transformer.inspection.explorer import write_explorer
from flax_transformer.inspection.search_tree import trace_search
from flax_transformer.inspection.sentence import describe_sentence, mean_entropy, pack_weights
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.translation.translator import Translator

LINES = ["The cat sees the dog.", "We eat bread and apples.", "A dog in the house."]
LINE = "The cat sees the dog 😀 </script>."


class Untrained:
    """As a `TrainedModel`, of which no run has written anything."""

    def __init__(self, config: Config, tokenizer, params):
        mesh = build_mesh(MeshConfig(), jax.devices()[:1])
        self.workdir = Path("<tiny>")
        self.config, self.tokenizer, self.params = config, tokenizer, jax.device_put(params)
        self.translator = Translator(config, tokenizer, mesh)

    def record_search(self, line: str, *, beam_size: int | None = None, prefix: str = ""):
        assert beam_size in (None, 2)
        return self.translator.record_search(self.params, line, prefix)


@pytest.fixture(scope="module")
def model(small_config, random_params, tmp_path_factory):
    decoding = DecodingConfig(beam_size=2, extra_length=2, max_source_length=48)
    config = dataclasses.replace(small_config, decoding=decoding)
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    return Untrained(
        config, train_tokenizer(LINES, config.tokenizer, path, seed=0), random_params(config)
    )


@pytest.fixture(scope="module")
def described(model):
    return describe_sentence(model, LINE)


def test_it_is_json_of_what_the_model_does(model, described):
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    tree = trace_search(model, LINE)
    assert [each["text"] for each in described["hypotheses"]] == [
        each.text for each in tree.hypotheses
    ]
    assert described["translation"] == tree.hypotheses[0].text and described["text"] == LINE
    assert described["source"] == list(tree.source)
    assert described["search"]["prefix_length"] == 0
    for step, nodes in zip(described["search"]["steps"], tree.steps, strict=True):
        for each, node in zip(step, nodes, strict=True):
            assert (each["piece"], each["fate"]) == (node.piece, node.fate)
            assert each["score"] == pytest.approx(node.score, abs=1e-5)


def test_hypotheses_are_found_in_the_search(described):
    steps = described["search"]["steps"]
    for hypothesis in described["hypotheses"]:
        nodes = [step[place] for step, place in zip(steps, hypothesis["path"], strict=False)]
        assert len(nodes) == len(hypothesis["path"]) and nodes[-1]["fate"] == "finished"
        assert nodes[-1]["score"] == pytest.approx(hypothesis["score"], abs=1e-4)
        assert [each["parent"] for each in nodes] == [None, *hypothesis["path"][:-1]]
        assert [each["piece"] for each in nodes] == [*hypothesis["pieces"], "</s>"]
    assert described["path"] == described["hypotheses"][0]["path"]
    assert described["target"] == [*described["hypotheses"][0]["pieces"], "</s>"]
    assert described["inputs"] == ["<s>", *described["target"][:-1]]


def test_weights_are_those_of_the_attention(model):
    described = describe_sentence(model, LINES[0], target=LINES[1])
    attention = attend(model.config, model.params, model.tokenizer, LINES[0], LINES[1])
    assert described["target"] == list(attention.target) and described["path"] is None
    assert described["attention"].keys() == {"encoder", "decoder", "cross"}
    for kind, packed in described["attention"].items():
        expected = getattr(attention, kind)
        levels = np.frombuffer(base64.b64decode(packed["weights"]), np.uint8)
        shape = tuple(packed[name] for name in ("layers", "heads", "rows", "columns"))
        assert shape == expected.shape
        np.testing.assert_allclose(levels.reshape(shape) / 255, expected, atol=0.5 / 255 + 1e-6)
        assert np.shape(described["entropy"][kind]) == shape[:2]


def test_a_translation_begins_as_it_is_told(model):
    described = describe_sentence(model, LINES[0], prefix="We eat ", beam_size=2)
    forced = described["search"]["prefix_length"]
    (ids,) = model.tokenizer.encode(["We eat"])
    assert forced == len(ids)
    assert described["target"][:forced] == model.tokenizer.pieces(ids)
    assert [len(step) for step in described["search"]["steps"][:forced]] == [1] * forced
    assert described["prefix"] == "We eat "


def test_a_line_without_words_has_no_search(model):
    described = describe_sentence(model, "")
    assert described["search"]["steps"] == [] and described["path"] is None
    assert described["source"] == described["target"] == ["</s>"]
    assert [each["text"] for each in described["hypotheses"]] == [""]


@pytest.mark.parametrize("cross", [None, np.full((1, 1, 3, 2), 0.5, np.float32)])
def test_attention_that_a_model_does_not_have_is_left_out(model, cross, monkeypatch):
    words: dict = dict(source=("a", "</s>"), target=("b", "</s>"), inputs=("<s>", "b"))
    seen = Attention(**words, encoder=None, decoder=None, cross=cross)
    monkeypatch.setattr(sentence_module, "attend_ids", lambda *arguments: seen)
    described = describe_sentence(model, LINE)
    kinds = set() if cross is None else {"cross"}
    assert described["attention"].keys() == described["entropy"].keys() == kinds


def test_entropy_is_1_for_even_weights_and_0_for_a_single_one():
    even = np.tri(4) / np.arange(1, 5)[:, None]
    weights = np.stack([even, np.eye(4)])[None].astype(np.float32)
    np.testing.assert_allclose(mean_entropy(weights, causal=True), [[1, 0]], atol=1e-6)
    halves = np.full((1, 1, 3, 4), [0.5, 0.5, 0, 0], np.float32)
    np.testing.assert_allclose(mean_entropy(halves, causal=False), [[0.5]], atol=1e-6)
    assert mean_entropy(np.ones((2, 3, 1, 1)), causal=True).tolist() == [[0] * 3] * 2


def test_what_is_not_a_number_has_no_weight():
    packed = pack_weights(np.array([0, 1, np.nan, 0.5], np.float32).reshape(1, 1, 2, 2))
    assert list(base64.b64decode(packed.pop("weights"))) == [0, 255, 0, 128]
    assert packed == {"layers": 1, "heads": 1, "rows": 2, "columns": 2}


def test_one_file_holds_all_sentences(model, tmp_path):
    write_explorer(tmp_path / "page.html", model, [LINE, LINES[0]])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data = json.loads(block)
    assert [each["text"] for each in data["sentences"]] == [LINE, LINES[0]]
    assert "<tiny>" in data["about"] and data["live"] is False and "<" not in block
    with pytest.raises(UserError, match="sources is empty: give at least one"):
        write_explorer(tmp_path / "page.html", model, [])
