"""Models go out: to transformers, to CTranslate2 and back to us, the same numbers."""

import dataclasses

import jax
import numpy as np
import pytest
from support.hugging_face import SENTENCES, write_m2m, write_marian, write_nllb
from support.samples import recurrent
from support.states import save_untrained_run

import flax_transformer as ft
from flax_transformer.data.builtin import generate
from flax_transformer.errors import UserError
from flax_transformer.exchange.exporting import export_model
from flax_transformer.exchange.importing import import_model


def flat(params) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(params))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def assert_same_parameters(one, other):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], name)


def save(config, folder):
    config = dataclasses.replace(config, decoding=ft.DecodingConfig(average_checkpoints=1))
    folder.mkdir()
    save_untrained_run(folder, config, [text for pair in generate(400)["train"] for text in pair])
    return folder


@pytest.fixture(scope="module")
def trained_workdir(small_config, tmp_path_factory):
    return save(small_config, tmp_path_factory.mktemp("runs") / "transformer")


@pytest.fixture(scope="module")
def recurrent_workdir(small_config, tmp_path_factory):
    return save(recurrent(small_config, "dot"), tmp_path_factory.mktemp("runs") / "recurrent")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A folder of transformers, and the work directory made of it."""
    place = tmp_path_factory.mktemp("export")
    write_marian(place / "theirs", languages=(">>fra<<",))
    import_model(place / "theirs", place / "ours")
    return place


@pytest.mark.parametrize(
    ("write", "languages", "files"),
    [
        (write_marian, (), ["source.spm", "target.spm"]),
        (write_m2m, ("en", "fr"), ["sentencepiece.bpe.model"]),
        (write_nllb, ("eng_Latn", "fra_Latn"), ["sentencepiece.bpe.model"]),
    ],
    ids=["marian", "m2m_100", "nllb"],
)
def test_what_came_in_goes_out_as_it_came(write, languages, files, tmp_path):
    from safetensors.numpy import load_file

    write(tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "ours", *languages)
    model = ft.load(tmp_path / "ours")
    export_model(model, tmp_path / "out", "huggingface")
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], name)
    for name in files:
        there = (tmp_path / "theirs" / name).read_bytes()
        assert (tmp_path / "out" / name).read_bytes() == there
    import_model(tmp_path / "out", tmp_path / "again", *languages)
    again = ft.load(tmp_path / "again")
    assert_same_parameters(model.params, again.params)
    assert again.config.model == model.config.model
    assert again.tokenizer.fingerprint == model.tokenizer.fingerprint
    assert again.tokenizer.encode(SENTENCES[:50]) == model.tokenizer.encode(SENTENCES[:50])


def test_ours_comes_back_bit_for_bit(trained_workdir, tmp_path):
    model = ft.load(trained_workdir)
    export_model(model, tmp_path / "out", "huggingface")
    import_model(tmp_path / "out", tmp_path / "again")
    again = ft.load(tmp_path / "again")
    assert_same_parameters(model.params, again.params)
    assert again.tokenizer.fingerprint == model.tokenizer.fingerprint
    assert again.config.model.norm_epsilon == model.config.model.norm_epsilon


def test_safetensors_hold_every_parameter_under_our_names(trained_workdir, tmp_path):
    from safetensors.numpy import load_file

    model = ft.load(trained_workdir)
    export_model(model, tmp_path / "out", "safetensors")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    ours = {
        name.strip("[]'").replace("']['", "."): leaf for name, leaf in flat(model.params).items()
    }
    assert tensors.keys() == ours.keys()
    for name in ours:
        np.testing.assert_array_equal(tensors[name], ours[name])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "BLEU" in card or "not scored" in card


@pytest.mark.peer("ctranslate2")
def test_ctranslate2_gives_the_same_translations(imported, trained_workdir, tmp_path):
    import ctranslate2

    for number, workdir in enumerate((imported / "ours", trained_workdir)):
        model = ft.load(workdir, extra_length=10, length_normalization="power", length_penalty=1.0)
        folder = tmp_path / str(number)
        export_model(model, folder, "ctranslate2")
        translator = ctranslate2.Translator(str(folder))
        source, target = model.tokenizer, model.tokenizer.target
        lines = SENTENCES[:50]
        if number:  # words that are not carried over as they are: of known letters
            letters = sorted(filter(str.isalpha, source.characters))
            random = np.random.default_rng(0)
            lines = [
                " ".join("".join(random.choice(letters, 3)) for _ in range(5)) for _ in "abcdefgh"
            ]
        targets = target.encode(lines[::-1])
        every = range(target.vocabulary_size)
        numbers = dict(zip(target.pieces(every), every, strict=True))
        pieces = [source.pieces(ids) for ids in source.encode(lines)]
        theirs = translator.score_batch(pieces, [target.pieces(ids) for ids in targets])
        ours = model.pair_scores(lines, lines[::-1])
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.total == pytest.approx(sum(other.log_probs), abs=1e-3)
        for mine, line in zip(model.search(lines, n_best=1), pieces, strict=True):
            found = translator.translate_batch(
                [line], beam_size=4, length_penalty=1.0, max_decoding_length=len(line) + 11 - 1
            )
            ids = [numbers[piece] for piece in found[0].hypotheses[0]]
            if len(ids) < len(line) + 10:  # ended by itself
                assert target.decode([ids]) == [mine[0].text]


@pytest.mark.peer("ctranslate2")
def test_the_lines_of_python_search_as_the_model_does(trained_workdir, tmp_path):
    model = ft.load(trained_workdir, beam_size=3, length_normalization="power", length_penalty=0.5)
    usage = export_model(model, tmp_path / "out", "ctranslate2")
    assert "beam_size=3, length_penalty=0.5, patience=3" in usage


@pytest.mark.parametrize(
    ("write", "options", "languages"),
    [
        (write_marian, {}, ()),
        (write_marian, {"languages": (">>fra<<", ">>deu<<")}, (None, "fra")),
        (write_m2m, {}, ("en", "fr")),
        (write_nllb, {}, ("eng_Latn", "fra_Latn")),
    ],
    ids=["one_language", "marian", "m2m", "nllb"],
)
@pytest.mark.parametrize(
    "target",
    [
        pytest.param("ctranslate2", marks=pytest.mark.peer("ctranslate2")),
        pytest.param("huggingface", marks=pytest.mark.peer("torch", "transformers")),
    ],
)
def test_the_lines_of_python_name_the_languages(
    target, write, options, languages, tmp_path, capsys
):
    write(tmp_path / "theirs", **options)
    import_model(tmp_path / "theirs", tmp_path / "ours", *languages)
    model = ft.load(tmp_path / "ours", beam_size=1, extra_length=20)
    exec(export_model(model, tmp_path / "out", target), {})
    printed = capsys.readouterr().out.replace("▁", " ").strip(" ['")
    # Theirs may go on where ours had to end.
    (ours,) = model.translate(["Hello."])
    assert len(ours) > 10 and printed.startswith(ours)


@pytest.mark.peer("ctranslate2")
def test_bfloat16_for_ctranslate2_needs_torch(trained_workdir, tmp_path, monkeypatch):
    from ctranslate2.specs import model_spec

    monkeypatch.setattr(model_spec, "torch_is_available", False)
    for quantization in ("bfloat16", "int8_bfloat16"):
        with pytest.raises(
            UserError, match=rf"--quantization {quantization}: .* pip install torch"
        ):
            export_model(ft.load(trained_workdir), tmp_path / "out", "ctranslate2", quantization)
        assert not list(tmp_path.iterdir())


def test_what_a_target_cannot_express_is_refused_before_anything_is_written(
    trained_workdir, recurrent_workdir, tmp_path
):
    for workdir, target, quantization, message in (
        (recurrent_workdir, "huggingface", None, "recurrent"),
        (recurrent_workdir, "ctranslate2", None, "recurrent"),
        (trained_workdir, "huggingface", "int8", "--quantization int8 is not for"),
    ):
        with pytest.raises(UserError, match=message):
            export_model(ft.load(workdir), tmp_path / "out", target, quantization)
        assert not list(tmp_path.iterdir())


def test_m2m_100_expresses_no_vocabulary_of_ours_and_no_bias_of_the_logits(small_config, tmp_path):
    fairseq = dataclasses.replace(small_config.model, norm="pre", positions="fairseq")
    config = dataclasses.replace(small_config, model=fairseq)
    own = ft.load(save(config, tmp_path / "own"))
    write_m2m(tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "ours", "en", "fr")
    biased = ft.load(tmp_path / "ours")
    bias = np.array(biased.params["output"]["bias"])
    bias[7] = 0.5
    biased.params["output"]["bias"] = bias
    for model, message in ((own, "has a vocabulary"), (biased, "has model.output_bias fixed")):
        with pytest.raises(UserError, match=message):
            export_model(model, tmp_path / "out", "huggingface")
        assert not (tmp_path / "out").exists()
