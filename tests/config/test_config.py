"""Settings: files, flags, JSON, and what is refused."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from flax_transformer.commands.command_line import parse_train_arguments
from flax_transformer.config import (
    Builtin,
    Config,
    MeshConfig,
    RecurrentConfig,
    TextFiles,
    Tfds,
    TransformerConfig,
)
from flax_transformer.config import run as settings
from flax_transformer.config.conventions import Conventions
from flax_transformer.config.data import TrainingFiles
from flax_transformer.config.json import differing_fields, load_config, save_config
from flax_transformer.config.shipped import load_config_file
from flax_transformer.decoding.lengths import longest_source, longest_target
from flax_transformer.errors import UserError
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.training.state import abstract_state, count_parameters

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs").glob("*.py"))
PARAMETERS = {"wmt_base": 63_045_632, "wmt_big": 214_171_648, "multi30k_en_de": 2_598_912}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_config_loads_and_builds_its_model_abstractly(path):
    config = load_config_file(path)
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    parameters = count_parameters(abstract_state(config, mesh).params)
    assert parameters == PARAMETERS.get(path.stem, parameters)
    assert "Command:" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("model", [TransformerConfig(norm="pre"), RecurrentConfig(cell="gru")])
@pytest.mark.parametrize(
    "data",
    [Builtin(num_pairs=7), TextFiles(directory="x", source_language="a", target_language="b"),
     Tfds(name="n")],
)  # fmt: skip
def test_json_gives_the_config_back(tmp_path, data, model):
    config = Config(data=data, model=dataclasses.replace(model, dropout=0.25))
    save_config(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == config


def test_json_without_a_kind_is_of_the_first(tmp_path):
    """As work directories were written when there was one kind of model."""
    save_config(Config(), tmp_path / "config.json")
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["model"].pop("kind") == "TransformerConfig"
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert load_config(tmp_path / "config.json") == Config()


def test_json_with_an_unknown_key_names_the_file(tmp_path):
    save_config(Config(), tmp_path / "config.json")
    text = (tmp_path / "config.json").read_text().replace("num_heads", "num_heds")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json cannot be read.*num_heds"):
        load_config(tmp_path / "config.json")


def test_differing_fields_names_each():
    other = dataclasses.replace(Config(), model=TransformerConfig(d_ff=64))
    assert differing_fields(Config(), Config()) == {}
    assert differing_fields(Config(), other) == {"model.d_ff": "model.d_ff: 2048 -> 64"}


def test_sentences_of_learned_positions_are_no_longer_than_in_training():
    decoding = settings.DecodingConfig(max_source_length=100, extra_length=50)
    batch = settings.BatchConfig(source_length=60, target_length=70)
    sines = Config(batch=batch, decoding=decoding, model=TransformerConfig(max_positions=8))
    assert (longest_source(sines), longest_target(sines, 60)) == (100, 110)
    learned = TransformerConfig(positions="learned", max_positions=70)
    limited = dataclasses.replace(sines, model=learned)
    assert (longest_source(limited), longest_target(limited, 60)) == (60, 70)
    assert longest_target(limited, 10) == 60
    few = dataclasses.replace(learned, max_positions=69)
    with pytest.raises(UserError, match=r"max_positions \(69\).*use at least 70"):
        dataclasses.replace(sines, model=few)


def test_flags_lie_over_the_file():
    words = ["--config", str(ROOT / "configs/wmt_base.py"), "--model.norm", "pre"]
    # d_model and num_heads are wrong one by one and right together.
    arguments = parse_train_arguments(
        [*words, "--model.d-model", "24", "--model.num-heads", "3", "--optimizer.clip-norm", "1"]
    )
    config = arguments.settings
    assert arguments.run_directory == Path("runs/wmt_base")
    assert (config.model.norm, config.model.d_model, config.model.num_heads) == ("pre", 24, 3)
    assert config.optimizer.clip_norm == 1.0 and config.training.steps == 100_000
    assert config.data == load_config_file(ROOT / "configs/wmt_base.py").data


def test_training_files_on_the_command_line(tmp_path, capsys):
    words = ["--config", str(ROOT / "configs/tatoeba_en_fr.py"), "--data.train", "train"]
    assert parse_train_arguments(words).settings.data.train == ("train",)
    config = parse_train_arguments([*words, "more,weight=2,tag=<bt>"]).settings
    assert config.data.training_files == (
        TrainingFiles(name="train"), TrainingFiles(name="more", weight=2, tag="<bt>"),
    )  # fmt: skip
    save_config(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == config
    with pytest.raises(SystemExit) as ended:
        parse_train_arguments([*words, "more,weight=0"])
    assert ended.value.code == 2
    assert "weight 0, but" in re.sub(r"[\s│]+", " ", capsys.readouterr().err)


def test_flags_are_those_of_the_files_model(capsys):
    words = ["--config", str(ROOT / "configs/multi30k_en_de_lstm.py")]
    flags = ["--model.cell", "gru", "--model.no-input-feeding", "--model.unroll-steps", "2"]
    model = parse_train_arguments([*words, *flags]).settings.model
    assert isinstance(model, RecurrentConfig)
    assert (model.cell, model.input_feeding, model.unroll_steps) == ("gru", False, 2)
    with pytest.raises(SystemExit):
        parse_train_arguments([*words, "--model.d-ff", "64"])
    assert "--model.d-ff" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.num-hedas", "4"], "--model.num-hea"),
        (["--model.num-heads", "four"], "four"),
        (["--model.num-heads", "7"], r"num_heads \(7\) must divide model.d_model \(512\)"),
        (["--training.steps", "0"], "training.steps is 0"),
        (["--model.norm", "middle"], "middle"),
        (["--mesh.data", "0"], "mesh is data=0"),
    ],
)
def test_wrong_flags_end_with_one_message_and_code_2(flags, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_train_arguments(["--config", str(ROOT / "configs/wmt_base.py"), *flags])
    assert ended.value.code == 2
    output = capsys.readouterr()
    # tyro wraps its messages in a box.
    assert re.search(message, re.sub(r"[\s│]+", " ", output.out + output.err))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from flax_transformer.config import *\nconfig = Config(modl=3)", "TypeError.*modl"),
        ("from flax_transformer.config import *\nconfig = TransformerConfig()", "must assign"),
        ("x = 1 +", "SyntaxError"),
        ("from flax_transformer.config import *\nx = TransformerConfig(num_heads=3)", "divide"),
    ],
)
def test_wrong_config_file_is_named(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=f"mine.py.*{message}"):
        load_config_file(tmp_path / "mine.py")


def test_missing_config_file_lists_its_neighbours():
    with pytest.raises(UserError, match="quickstart"):
        load_config_file(ROOT / "configs" / "quickstrat.py")


def test_mistake_on_the_command_line_shows_no_traceback():
    command = [sys.executable, "train.py", "--config", "configs/absent.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "configs/absent.py does not exist" in done.stderr and "Traceback" not in done.stderr


def test_the_papers_settings_come_before_the_conventions_of_others():
    names = [each.name for each in dataclasses.fields(TransformerConfig)]
    others = [each.name for each in dataclasses.fields(Conventions)]
    assert names[0] == "num_encoder_layers"
    assert names[-len(others) :] == others


def test_every_field_is_documented():
    config_files = sorted((ROOT / "flax_transformer" / "config").glob("*.py"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in config_files)
    sections = [c for c in vars(settings).values() if dataclasses.is_dataclass(c)]
    assert len(sections) >= 10
    for section in sections:
        for field in dataclasses.fields(section):
            assert re.search(rf'    {field.name}: [^\n]*\n    """', text) or section is Config


def test_help_is_quick_and_loads_no_heavy_library():
    command = [sys.executable, "-X", "importtime", "train.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--model.num-heads" in done.stdout
    loaded = set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))
    assert not loaded & {"jax", "flax", "numpy", "orbax", "grain", "tensorflow", "sentencepiece"}


def test_environment_has_no_tensorflow():
    command = [sys.executable, "-c", "import tensorflow"]
    assert subprocess.run(command, capture_output=True).returncode != 0


@pytest.mark.parametrize(
    "name",
    ["../x", "../../x", "/x", "/etc/passwd", "a/../b", "a/..", "..", ".", "", "a/", "a//b", "./a",
     "x\n", "x\x1b[31m", "n" * 300, "a/" + "é" * 120],
)  # fmt: skip
@pytest.mark.parametrize("setting", ["train", "validation", "test"])
def test_names_of_files_lead_nowhere_else(setting, name):
    files = {"directory": "x", "source_language": "en", "target_language": "de"}
    value = name if setting == "validation" else ("good", name)
    with pytest.raises(UserError, match=rf"data\.{setting}\b"):
        TextFiles(**files, **{setting: value})


@pytest.mark.parametrize("language", ["../x", "a/b", "/en", "..", "", "e\nn", "e" * 31])
@pytest.mark.parametrize("setting", ["source_language", "target_language"])
def test_languages_are_endings(setting, language):
    files = {"directory": "x", "source_language": "en", "target_language": "de"}
    with pytest.raises(UserError, match=rf"data\.{setting} is "):
        TextFiles(**files | {setting: language})
