"""Folders of others: what is refused, what is never executed, and what is trained further."""

import dataclasses
import gc
import json
import pickle
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.hugging_face import SENTENCES, write_m2m, write_marian

import flax_transformer as ft
from flax_transformer.config.json import load_config
from flax_transformer.errors import UserError
from flax_transformer.exchange.exporting import export_model
from flax_transformer.exchange.importing import import_model
from flax_transformer.text.imported_tokenizer import ImportedTokenizer


@pytest.fixture
def folder(tmp_path):
    write_marian(tmp_path / "theirs")
    return tmp_path / "theirs"


def refused(folder, message, **languages):
    with pytest.raises(UserError, match=message):
        import_model(folder, folder.parent / "ours", **languages)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["theirs"]


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "t5"}, "model_type 't5', but there is: marian, m2m_100"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps 'tiny'"),
        ({"scale_embedding": "yes"}, "scale_embedding 'yes'"),
        ({"dropout": "much"}, "dropout 'much'"),
        ({"encoder_layers": 10**9}, "encoder_layers 1000000000, but a model has .* to 1,000"),
        ({"d_model": -16}, "d_model -16"),
        ({"d_model": 10**12}, "d_model 1000000000000"),
        ({"vocab_size": "many"}, "vocab_size 'many'"),
        ({"decoder_ffn_dim": 48}, "encoder_ffn_dim 24 and decoder_ffn_dim 48"),
        ({"activation_function": "selu"}, "activation_function 'selu'"),
        ({"normalize_embedding": True}, "normalize_embedding True"),
        ({"d_model": 32}, "tensor .* has the shape .* but config.json makes it"),
        ({"decoder_layers": 3}, "no tensor model.decoder.layers.2"),
        ({"decoder_layers": 1}, "tensors that no model here has"),
        ({"pad_token_id": 10**6}, "pad_token_id 1000000"),
        ({"dropout": 7}, "dropout 7"),
        ({"tie_word_embeddings": False}, "no tensor lm_head.weight"),
    ],
)
def test_settings_that_cannot_be(folder, values, message):
    change(folder, **values)
    refused(folder, message)


def test_files_that_are_missing_or_damaged(folder):
    for name in ("source.spm", "vocab.json", "model.safetensors", "config.json"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        refused(folder, "cannot be read|holds neither")
        (folder / name).write_bytes(content[: len(content) // 2])
        refused(folder, "JSON|damaged|cannot be read|not a safetensors")
        (folder / name).write_bytes(content)


def test_a_vocabulary_of_another_model(folder):
    path = folder / "vocab.json"
    vocabulary = json.loads(path.read_text())
    path.write_text(json.dumps(vocabulary | {"more": len(vocabulary) + 5}))
    refused(folder, "not of one model")


@pytest.mark.parametrize("content", ['{"a": [1]}', '{"a": "1"}', '{"a": -1}', "[]"])
def test_vocabularies_that_are_none(folder, content):
    (folder / "vocab.json").write_text(content)
    refused(folder, "not as transformers writes|not of one model|not a JSON object")


def test_positions_that_are_no_number_limit_nothing(folder):
    change(folder, max_position_embeddings="many")
    import_model(folder, folder.parent / "ours")
    assert load_config(folder.parent / "ours" / "config.json").decoding.max_source_length == 512


def test_an_index_cannot_name_files_elsewhere(folder):
    index = {"weight_map": {"model.shared.weight": "../../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "outside its folder")


def test_integers_are_no_parameters(folder):
    tensors = load_file(folder / "model.safetensors")
    name = "model.encoder.layers.0.fc1.bias"
    save_file(tensors | {name: tensors[name].astype(np.int8)}, folder / "model.safetensors")
    refused(folder, "quantised")


class Evil:
    def __reduce__(self):
        import os

        return os.mkdir, ("executed",)


def write_pickle(folder, content):
    (folder / "model.safetensors").unlink(missing_ok=True)
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", content)


def test_a_pickle_executes_nothing(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write_pickle(folder, pickle.dumps({"weight": Evil()}))
    refused(folder, r"wants to call .*mkdir, .* nothing was executed")
    assert not (folder / "executed").exists()
    for content, message in (
        (b"\x80\x02}q\x00.", "no tensor|holds"),
        (pickle.dumps([1, 2]), "something other than tensors"),
        (b"garbage", "is no file of tensors"),
    ):
        write_pickle(folder, content)
        refused(folder, message)
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    refused(folder, "is compressed")


def test_languages_are_named(tmp_path):
    write_m2m(tmp_path / "theirs")
    refused(tmp_path / "theirs", "give --source-language")
    message = "no symbol {}; it has __af__, __am__"
    for code in ("xx", "a"):  # the latter is a piece of text
        languages = {"source_language": "en", "target_language": code}
        refused(tmp_path / "theirs", message.format(code), **languages)


def test_a_folder_opens_as_it_is(folder, tmp_path):
    import_model(folder, tmp_path / "ours")
    lines = SENTENCES[:3]
    found = ft.load(folder, beam_size=2, extra_length=4)
    assert found.config.decoding.beam_size == 2
    expected = ft.load(tmp_path / "ours", beam_size=2, extra_length=4)
    assert found.translate(lines) == expected.translate(lines)
    with pytest.raises(UserError, match="leave out source_language"):
        ft.load(tmp_path / "ours", source_language="en")


def test_what_opened_as_it_is_can_be_pruned_and_leaves_nothing(folder, tmp_path):
    model = ft.load(folder, beam_size=1, extra_length=2)
    place = model.workdir
    assert place.name == folder.name and place != folder
    pruned = model.prune(tmp_path / "pruned", SENTENCES[:2], SENTENCES[:2], heads=11)
    assert pruned.tokenizer.fingerprint == model.tokenizer.fingerprint
    assert place.exists()
    del model
    gc.collect()
    assert not place.exists()


def test_nothing_is_replaced(folder):
    (folder.parent / "ours").mkdir()
    (folder.parent / "ours" / "mine").touch()
    with pytest.raises(UserError, match="exists already"):
        import_model(folder, folder.parent / "ours")


def test_training_goes_on_from_an_imported_model(folder, tmp_path, quick):
    """The loss falls, the vocabulary stays, and what comes out opens as a MarianMT folder."""
    start = tmp_path / "ours"
    import_model(folder, start)
    for split, lines in (("train", SENTENCES[:200]), ("valid", SENTENCES[200:210])):
        (tmp_path / f"{split}.en").write_text("\n".join(lines) + "\n")
        (tmp_path / f"{split}.fr").write_text("\n".join(lines) + "\n")
    config = load_config(start / "config.json")
    config = dataclasses.replace(
        config,
        data=ft.TextFiles(
            directory=str(tmp_path), source_language="en", target_language="fr", test=("valid",)
        ),
        batch=ft.BatchConfig(rows=4, source_length=64, target_length=64),
        optimizer=ft.OptimizerConfig(warmup_steps=10),
        training=ft.TrainingConfig(
            steps=30, log_every=10, evaluate_every=30, checkpoint_every=30, start_from=str(start)
        ),
    )
    ft.Run(config, tmp_path / "tuned").train()
    rows = [
        json.loads(row)
        for row in (tmp_path / "tuned" / "metrics.jsonl").read_text().split("\n")
        if row
    ]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] - 0.5
    tuned = ft.load(tmp_path / "tuned", beam_size=1)
    assert isinstance(tuned.tokenizer, ImportedTokenizer)
    assert tuned.tokenizer.fingerprint == ft.load(start).tokenizer.fingerprint
    bias = tuned.params["output"]["bias"]
    np.testing.assert_array_equal(bias, ft.load(start).params["output"]["bias"])  # "fixed"
    export_model(tuned, tmp_path / "out", "huggingface")
    assert (tmp_path / "out" / "vocab.json").read_text() != ""
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "out"))
    assert before.keys() == after.keys()
