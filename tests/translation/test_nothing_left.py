"""Lines for which the rules of the search leave no translation: they are empty, and it is said."""

import asyncio
import dataclasses
import math
import sys

import jax.numpy as jnp
import pytest
from support.states import save_untrained_run

import flax_transformer as ft
from flax_transformer.commands import translate
from flax_transformer.data.builtin import generate
from flax_transformer.serving.limits import Limits
from flax_transformer.serving.service import Service
from flax_transformer.translation import search as search_module

MESSAGE = "1 line(s) are left empty: min_length 5 and no_repeat_ngram 1 leave their translations"


def nothing_follows(logits, ids, position, must_end):
    return jnp.where(must_end[:, None, None], logits, -jnp.inf)


@pytest.fixture
def workdir(small_config, tmp_path, monkeypatch):
    texts = [text for pair in generate(200)["train"] for text in pair]
    decoding = ft.DecodingConfig(average_checkpoints=1)
    config = dataclasses.replace(small_config, decoding=decoding)
    save_untrained_run(tmp_path, config, texts)
    monkeypatch.setattr(search_module, "rules_of", lambda *_: [nothing_follows])
    return tmp_path


def test_python_warns_of_them_and_the_command_tells_of_them(workdir, capsys, monkeypatch):
    model = ft.load(workdir, min_length=5, no_repeat_ngram=1)
    with pytest.warns(UserWarning) as warned:
        (found, blank) = model.search(["we eat bread", ""])
    assert MESSAGE in str(warned[0].message)
    assert [(each.text, each.score) for each in found] == [("", -math.inf)]
    assert blank[0].score == 0
    (workdir / "lines").write_text("we eat bread\n\n")
    words = ["--workdir", str(workdir), "--input", str(workdir / "lines"), "--output",
             str(workdir / "out"), "--min-length", "5", "--no-repeat-ngram", "1"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["translate", *words])
    translate.main(words)
    assert (workdir / "out").read_text() == "\n\n"
    assert MESSAGE in capsys.readouterr().err


def test_the_server_notes_them(workdir, monkeypatch):
    model = ft.load(workdir, beam_size=2, min_length=5, no_repeat_ngram=1)
    service = Service(lambda: model, Limits(), [2])
    service._model, service.is_warm = model, True

    async def search(lines, prefixes, beam_size):
        return model.search(lines)

    monkeypatch.setattr(service.batcher, "translate", search)
    asked = {
        "/translate": service.translate({"lines": ["we eat bread", ""]}),
        "/score": service.score({"sources": ["we eat bread", ""], "references": ["nous", ""]}),
    }
    for path, answering in asked.items():
        with pytest.warns(UserWarning):
            answer = asyncio.run(answering)
        assert answer["translations"] == ["", ""] and MESSAGE in answer["note"]
        assert answer.keys() <= service.operations[path].answer["properties"].keys()
