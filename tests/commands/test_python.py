"""`import flax_transformer as ft`: what it loads and when, and what its models can do."""

import ast
import dataclasses
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.states import save_untrained_run

import flax_transformer as ft
from flax_transformer.commands import translate
from flax_transformer.data.builtin import generate
from flax_transformer.diagnosis.alignment import align
from flax_transformer.evaluation import scores

pytestmark = pytest.mark.usefixtures("quick")

ROOT = Path(__file__).parents[2]
LINES = ["The cat sees the dog.", "", "We eat bread and apples."]
REFERENCES = ["Le chat voit le chien.", "", "Nous mangeons du pain et des pommes."]


@pytest.fixture(scope="module")
def config(small_config) -> ft.Config:
    """Of a tiny model that trains two steps."""
    return dataclasses.replace(
        small_config,
        data=ft.Builtin(num_pairs=400),
        batch=ft.BatchConfig(rows=8, source_length=48, target_length=56),
        training=ft.TrainingConfig(steps=2, validation_sentences=4),
        decoding=ft.DecodingConfig(beam_size=2, extra_length=2, max_source_length=48),
    )


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    folder.mkdir()
    texts = [text for pair in generate(400)["train"] for text in pair]
    save_untrained_run(folder, config, texts, steps=(1000, 2000))
    return folder


@pytest.fixture(scope="module")
def model(workdir) -> ft.Model:
    return ft.load(workdir)


def promised() -> dict[str, tuple[str, str]]:
    """What type checkers read: each name with its module and its name there."""
    tree = ast.parse(Path(ft.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    # With it, a type checker would take every name for one that is there.
    assert "__getattr__" not in {getattr(node, "name", "") for node in tree.body}
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        for alias in node.names
    }


def test_the_import_loads_no_library():
    command = [sys.executable, "-X", "importtime", "-c", "import flax_transformer"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = re.findall(r"(\d+) \|( +)(\S+)$", done.stderr, re.MULTILINE)
    (microseconds,) = (int(time) for time, _, name in rows if name == "flax_transformer")
    assert microseconds < 300_000
    after_site = [name for _, _, name in rows][[name for _, _, name in rows].index("site") + 1 :]
    assert {name.split(".")[0] for name in after_site} <= {ft.__name__, *sys.stdlib_module_names}


def test_names_are_those_that_type_checkers_see():
    names = promised()
    assert sorted(ft.__all__) == sorted([*names, "__version__"]) == sorted(dir(ft))
    for name, (module, original) in names.items():
        assert getattr(ft, name) is getattr(importlib.import_module(module), original)
    with pytest.raises(AttributeError, match=r"module 'flax_transformer' has no attribute 'lode'"):
        ft.lode  # noqa: B018


def test_a_model_shows_what_it_is_made_of(model, config, packed_batch):
    assert model.config.decoding == config.decoding
    assert model.tokenizer.decode(model.tokenizer.encode(LINES[:1])) == LINES[:1]
    features = model.module.apply({"params": model.params}, packed_batch)
    assert features.shape == (8, 16, 16) and np.isfinite(features).all()
    assert model.steps == [1000, 2000] and model.notes == []


def test_translations_are_the_best_of_a_search(model):
    found = model.search(LINES)
    assert model.translate(LINES) == [hypotheses[0].text for hypotheses in found]
    assert all(isinstance(each, ft.Hypothesis) for hypotheses in found for each in hypotheses)
    assert found[1] == [ft.Hypothesis("", 0.0, 0)]
    assert max(map(len, found)) == 2
    assert model.search(LINES, n_best=1) == [hypotheses[:1] for hypotheses in found]


def test_a_search_may_be_wider_or_narrower_than_the_runs(model, workdir):
    wide, greedy = (model.search(LINES, beam_size=width) for width in (8, 1))
    assert max(map(len, wide)) > 2 and max(map(len, greedy)) == 1
    assert wide == ft.load(workdir, beam_size=8).search(LINES)
    assert greedy == ft.load(workdir, beam_size=1).search(LINES)
    assert model.search(LINES, beam_size=2) == model.search(LINES)
    compiled = [model._translator(width).compiled_shapes for width in (1, 2, 8)]
    assert [len(shapes) for shapes in compiled] == [1, 1, 1]


def test_a_command_takes_the_same_way(model, workdir, tmp_path):
    (tmp_path / "source").write_text("".join(f"{line}\n" for line in LINES))
    words = ["--workdir", workdir, "--input", tmp_path / "source", "--output", tmp_path / "target"]
    translate.main(list(map(str, words)))
    assert (tmp_path / "target").read_text().splitlines() == model.translate(LINES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_best": 3}, "n_best is 3, but must be from 1 to beam_size 2"),
        ({"n_best": 0}, "n_best is 0"),
        ({"beam_size": 0}, r"decoding\.beam_size is 0"),
        ({"beam_size": "4"}, r"decoding\.beam_size is '4'"),
    ],
)
def test_wrong_searches_are_named(model, options, message):
    with pytest.raises(ft.UserError, match=message):
        model.search(LINES, **options)


def test_one_text_is_no_list(model):
    with pytest.raises(TypeError, match=r"must be a list of them: \[text\]"):
        model.translate("The cat sees the dog.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 4}, r"decoding\.beam is no setting; there is: beam_size, "),
        ({"checkpoint": "newest"}, r"decoding\.checkpoint is 'newest'"),
        ({"checkpoint": 7}, r"holds only 1000, 2000"),
    ],
)
def test_wrong_settings_are_named(workdir, options, message):
    with pytest.raises(ft.UserError, match=message):
        ft.load(workdir, **options)


def test_settings_lie_over_the_runs(workdir, config):
    model = ft.load(str(workdir), checkpoint="latest", extra_length=1)
    assert model.steps == [2000]
    changed = dataclasses.replace(config.decoding, checkpoint="latest", extra_length=1)
    assert model.config.decoding == changed


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ft.UserError, match=r"config\.json does not exist: is this the work dir"):
        ft.load(tmp_path)


def test_what_is_to_be_said_of_checkpoints_is_warned_of(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    largest = max(
        (tmp_path / "run/checkpoints/2000").rglob("*"), key=lambda path: path.stat().st_size
    )
    largest.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="^left out of .*2000") as caught:
        model = ft.load(tmp_path / "run")
    assert model.steps == [1000] and caught[0].filename == __file__


def test_scores_are_sacrebleus_of_the_translations(model):
    score = model.score(LINES, REFERENCES)
    expected = scores.score(model.translate(LINES), REFERENCES, metrics=("bleu", "chrf"))
    assert (score.bleu, score.signature) == (expected["bleu"], expected["bleu_signature"])
    assert (score.chrf, score.chrf_signature) == (expected["chrf"], expected["chrf_signature"])
    assert score.hypotheses == tuple(model.translate(LINES))
    assert re.fullmatch(r"BLEU \d+\.\d\d \(.*tok:13a.*\)\nchrF2 \d+\.\d\d \(.*\)", str(score))
    with pytest.raises(dataclasses.FrozenInstanceError):
        score.bleu = 100.0


def test_scores_are_taken_as_is_asked_for(model, monkeypatch):
    monkeypatch.setattr(model, "translate", lambda lines: REFERENCES)
    exact = model.score(LINES, REFERENCES)
    assert exact.bleu == pytest.approx(100) and exact.chrf == pytest.approx(100)
    upper = [line.upper() for line in REFERENCES]
    assert model.score(LINES, upper).bleu < 50
    lowered = model.score(LINES, upper, lowercase=True, tokenize="char")
    assert lowered.bleu == pytest.approx(100)
    assert "case:lc" in lowered.signature and "tok:char" in lowered.signature


@pytest.mark.parametrize(
    ("sources", "references", "message"),
    [
        ([], [], "sources is empty"),
        (LINES, LINES[:2], "there are 3 sources and 2 references"),
    ],
)
def test_what_cannot_be_scored_is_named(model, sources, references, message):
    with pytest.raises(ft.UserError, match=message):
        model.score(sources, references)


def test_attention_is_that_of_the_full_pass(model):
    found = model.attention(LINES[0], REFERENCES[0])
    assert found.target[-1] == found.source[-1] == "</s>" and found.inputs[0] == "<s>"
    assert found.inputs[1:] == found.target[:-1]
    ids = model.tokenizer.encode([LINES[0]])[0]
    assert list(found.source[:-1]) == model.tokenizer.pieces(ids)
    s, t = len(found.source), len(found.target)
    assert found.encoder.shape == (2, 8, s, s)
    assert found.decoder.shape == (2, 8, t, t)
    assert found.cross.shape == (2, 8, t, s)
    for weights in (found.encoder, found.decoder, found.cross):
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    assert (np.triu(found.decoder[0, 0], 1) == 0).all()
    # The last layer's mean over heads is what the search itself looks at, step by step.
    aligned = align(model.config, model.params, model.tokenizer, LINES[0], REFERENCES[0])
    np.testing.assert_allclose(found.cross[-1].mean(axis=0), aligned.weights, atol=1e-5)


def test_attention_of_its_own_translation(model):
    found = model.attention(LINES[0])
    given = model.attention(LINES[0], model.translate([LINES[0]])[0])
    assert found.target == given.target
    np.testing.assert_array_equal(found.cross, given.cross)


def readme_blocks() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def kind_of(value: object) -> object:
    """A value's types, as far down as lists and tuples go."""
    if type(value) in (list, tuple):
        return type(value), *map(kind_of, value)
    return type(value)


@pytest.mark.parametrize("block", readme_blocks())
def test_the_readme_shows_lines_that_run(block, workdir, config, tmp_path, monkeypatch):
    """On a tiny run of that name; what stands after a line is of the kind of what it gives."""
    shutil.copytree(workdir, tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ft, "load_config", lambda name: {"quickstart": config}[name])
    names: dict[str, object] = {"ft": ft}
    lines = block.splitlines()
    compared = 0
    for statement in ast.parse(block).body:
        text = ast.unparse(statement)
        if not isinstance(statement, ast.Expr):
            exec(text, names)
            continue
        value = eval(text, names)
        after = lines[statement.end_lineno - 1][statement.end_col_offset :].strip(" #")
        if after.startswith(("[", "(", '"')) or after[:1].isdigit():
            assert kind_of(value) == kind_of(eval(after, names)), text
            compared += 1
    assert compared or "ft.Run" in block


def test_the_readme_shows_how_to_use_it_from_python():
    assert sum("ft.load(" in block for block in readme_blocks()) == 1


def test_load_config_takes_a_name_or_a_path():
    config = ft.load_config("wmt_base")
    assert config == ft.load_config(ROOT / "configs" / "wmt_base.py")
    assert config == ft.load_config(str(ROOT / "configs/wmt_base.py"))
    with pytest.raises(ft.UserError, match=r"base is neither .* quickstart.* wmt_base, wmt_big$"):
        ft.load_config("base")
