"""The models that come with the package: small, whole, described, and usable by name."""

import re
from pathlib import Path

import pytest

import flax_transformer as ft
from flax_transformer.commands.command_line import TranslatingArguments, parse_decoding_arguments
from flax_transformer.config import DecodingConfig
from flax_transformer.config.shipped import load_config_file, model_folder, shipped_models
from flax_transformer.errors import UserError
from flax_transformer.translation.trained_model import TrainedModel

NAME = "en-fr-small"
MEGABYTES = 12


@pytest.fixture(scope="module")
def model():
    return ft.load(NAME, beam_size=1)


def test_files_are_few_and_small():
    for folder in shipped_models().values():
        names = {path.name for path in folder.iterdir()}
        assert names == {"README.md", "config.json", "model.safetensors", "tokenizer.model"}
        assert sum(path.stat().st_size for path in folder.iterdir()) < MEGABYTES * 1e6


def test_the_card_names_its_data_their_terms_and_its_scores():
    card = (shipped_models()[NAME] / "README.md").read_text(encoding="utf-8")
    for text in ("Tatoeba", "CC BY 2.0", "Europarl", "Koehn 2005", "BLEU", "Limits"):
        assert text in card
    assert re.search(r"\|\s*\d+\.\d", card), "no score"


def test_it_is_the_model_of_its_config(model):
    shipped = load_config_file("en_fr_small")
    for section in ("data", "tokenizer", "batch", "model", "optimizer"):
        # compute_dtype is settled for the machine that translates.
        if section == "model":
            continue
        assert getattr(model.config, section) == getattr(shipped, section)
    assert model.steps[-1] == shipped.training.steps


def test_translates_everyday_sentences(model):
    sources = ["I am hungry.", "Where is the station?", "She doesn't know.", "Thank you."]
    answers = {"J'ai faim.", "Où est la gare ?", "Elle ne sait pas.", "Merci."}
    found = model.translate(sources)
    assert len(answers & {text.replace("\u202f", " ").replace("\xa0", " ") for text in found}) >= 3


def test_by_name_wherever_a_model_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_folder(NAME) == shipped_models()[NAME]
    (tmp_path / NAME).mkdir()  # what the user has comes first
    assert str(model_folder(NAME)) == NAME


def test_by_name_in_an_ensemble(model):
    together = TrainedModel(model_folder(NAME), model.config, others=[Path(NAME)])
    lines = ["I am hungry."]
    assert together.translate(lines) == model.translate(lines), "with itself it is itself"


def parse(*words):
    return parse_decoding_arguments(TranslatingArguments, words)


def test_in_place_of_a_work_directory():
    arguments, config = parse("--model", NAME, "--beam-size", "2")
    assert arguments.workdir == shipped_models()[NAME] and str(arguments.results) == f"runs/{NAME}"
    assert config.decoding.beam_size == 2 != DecodingConfig().beam_size
    with pytest.raises(UserError, match="--workdir and --model exclude each other"):
        parse("--model", NAME, "--workdir", "runs/base")
    with pytest.raises(UserError, match=f"no model 'en-de' comes with .* there is: .*{NAME}"):
        parse("--model", "en-de")
