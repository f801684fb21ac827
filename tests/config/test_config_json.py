"""What is read from config.json is checked as strictly as what is typed."""

import dataclasses
import itertools
import json
import math
import os
import random
import typing
from pathlib import Path

import pytest

from flax_transformer.commands.command_line import parse_decoding_arguments, parse_train_arguments
from flax_transformer.config import (
    BatchConfig,
    Builtin,
    Config,
    DecodingConfig,
    MeshConfig,
    OptimizerConfig,
    RecurrentConfig,
    TextFiles,
    Tfds,
    TokenizerConfig,
    TrainingConfig,
    TransformerConfig,
)
from flax_transformer.config.data import TrainingFiles
from flax_transformer.config.hosts import HostsConfig
from flax_transformer.config.json import config_to_dict, load_config, save_config
from flax_transformer.errors import UserError

ROOT = Path(__file__).parents[2]
FILES = TextFiles(directory="corpus", source_language="en", target_language="de")
CORPORA = {"Builtin": Builtin(), "TextFiles": FILES, "Tfds": Tfds()}
SECTIONS = [
    TokenizerConfig(), BatchConfig(), OptimizerConfig(), TrainingConfig(), MeshConfig(),
    DecodingConfig(), HostsConfig(), TransformerConfig(), RecurrentConfig(), *CORPORA.values(),
    TrainingFiles(name="train"),
]  # fmt: skip


@pytest.fixture
def path(tmp_path):
    save_config(Config(), tmp_path / "config.json")
    return tmp_path / "config.json"


def load_text(path: Path, text: str | bytes) -> Config:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path)


def load_with(path: Path, section: str, value: str) -> Config:
    """`value`, as JSON writes it, in the place of a section or of a section's field."""
    name, _, field = section.partition(".")
    values = config_to_dict(Config(data=FILES)) if name == "data" else config_to_dict(Config())
    if field:
        values[name][field] = "HERE"
    else:
        values[name] = "HERE"
    return load_text(path, json.dumps(values).replace('"HERE"', value, 1))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("decoding.beam_size", "4.5", "decoding.beam_size is 4.5, but must be a whole number"),
        ("decoding.beam_size", "4.0", "is 4.0, but must be a whole number"),
        ("decoding.beam_size", '"4"', "is '4', but must be a whole number"),
        ("decoding.beam_size", "true", "is True, but must be a whole number"),
        ("decoding.beam_size", "null", "is None, but must be a whole number"),
        ("decoding.beam_size", "[4]", r"is \[4\], but must be a whole number"),
        ("decoding.beam_size", "{}", r"is \{\}, but must be a whole number"),
        ("decoding.beam_size", "0", "decoding.beam_size is 0, but must be greater than 0"),
        ("decoding.length_penalty", "NaN", "is nan, but must be a finite number"),
        ("decoding.length_penalty", "1e400", "is inf, but must be a finite number"),
        ("decoding.length_penalty", '"0.6"', "is '0.6', but must be a finite number"),
        ("decoding.length_penalty", "false", "is False, but must be a finite number"),
        ("decoding.length_penalty", "1" + "0" * 400, "length_penalty is inf, but must be a fin"),
        ("decoding.checkpoint", '"worst"', "'worst', but must be one of auto, average, best, late"),
        ("decoding.checkpoint", "-1", "decoding.checkpoint is -1, but .* at least 0"),
        ("decoding.checkpoint", "true", "decoding.checkpoint is True, but must be"),
        ("decoding.checkpoint", "4000.0", "decoding.checkpoint is 4000.0, but must be"),
        ("training.steps", "1e400", "training.steps is inf, but must be a whole number"),
        ("training.steps", "Infinity", "training.steps is inf, but must be a whole number"),
        ("training.steps", "-Infinity", "training.steps is -inf, but must be a whole number"),
        ("training.steps", "1e5", "training.steps is 100000.0, but must be a whole number"),
        ("training.steps", "3000000000", "training.steps is 3000000000, .* at most 2,000,000,000"),
        ("training.steps", "9" * 90, "training.steps is 9999.*at most 2,000,000,000"),
        ("training.steps", "9" * 5000, "training.steps is inf, but .* at most 2,000,000,000"),
        ("training.seed", "4294967296", "training.seed is 4294967296, .* at most 2,000,000,000"),
        ("training.checkpoint_minutes", "-1", "checkpoint_minutes is -1, but must not be negative"),
        ("training.label_smoothing", "NaN", "label_smoothing is nan, but must be a finite"),
        ("training.label_smoothing", "1", r"label_smoothing is 1, but must be in \[0, 1\)"),
        ("training.teacher_forcing", '"never"', "'never', but must be one of always, linear"),
        ("optimizer.clip_norm", "NaN", "clip_norm is nan, but must be a finite number or None"),
        ("optimizer.clip_norm", '"None"', "clip_norm is 'None', but must be a finite number or"),
        ("optimizer.learning_rate_scale", "-Infinity", "learning_rate_scale is -inf, but must be"),
        ("model.norm", '"evil"', "model.norm is 'evil', but must be one of post, pre"),
        ("model.norm", "null", "model.norm is None, but must be one of post, pre"),
        ("model.norm", '["post"]', r"model.norm is \['post'\], but must be one of post, pre"),
        ("training.deterministic", "1", "deterministic is 1, but must be true or false"),
        ("training.deterministic", '"true"', "deterministic is 'true', but must be true or false"),
        ("model.kernels", "true", "model.kernels is True, but must be one of fast, reference"),
        ("model.dropout", "1.5", r"model.dropout is 1.5, but must be in \[0, 1\)"),
        ("model.kind", '"Mamba"', "model.kind is 'Mamba', but must be one of TransformerConfig, R"),
        ("model.kind", "[]", r"model.kind is \[\], but must be one of"),
        ("model.kind", "null", r"model.kind is None, but must be one of"),
        ("model.num_heds", "8", "model.num_heds is no setting; there is: num_encoder_layers, .*"),
        ("model", "null", "model is None, but must be an object"),
        ("model", "[]", r"model is \[\], but must be an object"),
        ("model", '"TransformerConfig"', "model is 'TransformerConfig', but must be an object"),
        ("tokenizer", "3", "tokenizer is 3, but must be an object"),
        ("tokenizer.kind", '"TokenizerConfig"', "tokenizer.kind is no setting"),
        ("tokenizr", "{}", "tokenizr is no setting; there is: data, tokenizer, batch"),
        ("\\ud800\\u0000", "{}", "is no setting"),
        ("data", '{"kind": "TextFiles"}', "data.directory is missing"),
        ("data", '{"num_pairs": 7, "directory": "x"}', "is no setting; there is: placeholders, c"),
        ("data.directory", "null", "data.directory is None, but must be text"),
        ("data.directory", "7", "data.directory is 7, but must be text"),
        ("data.directory", '"a\\u0000b"', "data.directory is 'a.x00b', but must be text"),
        ("data.directory", '"\\udce9"', "data.directory is '.udce9', but must be text"),
        ("data.train", '"train"', "data.train is 'train', but must be a list of texts"),
        ("data.train", "[1]", r"data.train is \[1\], but must be a list of texts"),
        ("data.train", '[["train"]]', r"data.train is \[\['train'\]\], but must be a list of te"),
        ("data.test", '{"test": 1}', r"data.test is \{'test': 1\}, but must be a list of texts"),
        ("data.train", '["x,weight=' + "9" * 5000 + '"]', "a weight is a whole number"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(path, setting, value, message):
    with pytest.raises(UserError, match=rf"(?s)config\.json cannot be read: .*{message}") as error:
        load_with(path, setting, value)
    assert len(str(error.value)) < 900


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 column 1"),
        ("{", "line 1 column 2"),
        ("[]", r"it is \[\], but must be an object"),
        ("null", "it is None, but must be an object"),
        ("3", "it is 3, but must be an object"),
        ('{"batch": {"rows": 8, "rows": 16}}', "rows is given twice"),
        ('{"batch": {}, "batch": {}}', "batch is given twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"data": ' + "[" * 900 + "]" * 900 + "}", "data is|nested too deeply"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"data": "caf\xe9"}', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"\0" * 1000, "line 1 column 1"),
        (b'{"batch": {}}\0', "line 1 column 14"),
    ],
)  # fmt: skip
def test_damaged_text_is_named(path, text, message):
    with pytest.raises(UserError, match=rf"config\.json cannot be read: .*({message})"):
        load_text(path, text)


def test_what_is_no_file_is_named_and_never_waited_for(path):
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"config\.json cannot be read: .*not an ordinary file"):
        load_config(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"config\.json cannot be read: .*not an ordinary file"):
        load_config(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"config\.json cannot be read: .*not an ordinary file"):
        load_config(path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        load_config(path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)  # of which nothing lies on the disk
    with pytest.raises(UserError, match=r"config\.json cannot be read: .*larger"):
        load_config(path)
    with pytest.raises(UserError, match="does not exist: is this the work directory"):
        load_config(path.parent / "absent" / "config.json")


def test_a_hugging_face_folder_is_told_the_way_in(path):
    path.write_text('{"model_type": "marian", "d_model": 512}')
    with pytest.raises(UserError, match=f"import --from {path.parent} --workdir OUT$"):
        load_config(path)


def test_an_unreadable_file_is_named(path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # as root, who can read everything, too
    with pytest.raises(UserError, match=r"config\.json cannot be read: Permission denied"):
        load_config(path)


def test_whole_numbers_are_fine_for_fractions_and_missing_parts_are_defaults(path):
    assert load_with(path, "model.dropout", "0").model.dropout == 0
    assert load_text(path, "{}") == Config()
    assert load_text(path, '{"model": {"d_ff": 64}}') == Config(model=TransformerConfig(d_ff=64))
    assert load_with(path, "optimizer.clip_norm", "null").optimizer.clip_norm is None


@pytest.mark.parametrize("checkpoint", ["auto", "average", "best", "latest", 0, 4000])
def test_the_checkpoint_to_translate_with_is_typed_and_remembered(path, checkpoint):
    words = ["--workdir", str(path.parent), "--checkpoint", str(checkpoint)]
    from flax_transformer.commands.command_line import DecodingArguments

    arguments, config = parse_decoding_arguments(DecodingArguments, words)
    assert arguments.decoding.checkpoint == config.decoding.checkpoint == checkpoint
    save_config(config, path)
    assert load_config(path) == config
    assert type(load_config(path).decoding.checkpoint) is type(checkpoint)


@pytest.mark.parametrize("fused", [True, False])
def test_a_run_with_a_setting_that_is_gone_loads(path, fused):
    """It goes on with the fast functions, which but for this kernel it had in either case."""
    values = config_to_dict(Config())
    values["model"]["fused_attention"] = fused
    del values["model"]["kernels"]
    loaded = load_text(path, json.dumps(values))
    assert loaded == Config()
    assert loaded.model.kernels == "fast"


def test_a_run_from_before_a_setting_existed_loads(path):
    values = json.loads(path.read_text())
    del values["decoding"]["checkpoint"], values["training"]["checkpoint_minutes"]
    assert load_text(path, json.dumps(values)) == Config()
    # A setting that changes what is trained on: such a run had none of it, whatever the default.
    del values["data"]["placeholders"]
    assert load_text(path, json.dumps(values)) == Config(data=Builtin(placeholders=0.0))


def wrong_values(hint: object) -> list[object]:
    """Some of every type that `hint` does not allow; of floats, those that are not finite."""
    allowed = set(typing.get_args(hint)) or {hint}
    values: list[object] = [math.nan, math.inf, -math.inf, object(), b"x", {}, {"a"}, ["a"], (1,)]
    values += ["\ud800", "a\0"] if str in allowed else ["text"]
    values += [] if allowed & {int, float} else [3]
    values += [10**400] if allowed & {int, float} else []
    values += [] if float in allowed else [2.5]
    values += [] if bool in allowed else [True]
    values += [] if type(None) in allowed else [None]
    return values


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: type(section).__name__)
def test_no_section_takes_a_value_of_another_type(section):
    """As a Python file may give them; comparisons alone would let NaN pass."""
    for name, hint in typing.get_type_hints(type(section)).items():
        for value in wrong_values(hint):
            with pytest.raises(UserError, match=rf"\b{name}\b.*, but"):
                dataclasses.replace(section, **{name: value})


def test_sections_are_of_their_classes():
    with pytest.raises(UserError, match="model is 3, but must be a TransformerConfig or a Recur"):
        Config(model=3)
    with pytest.raises(UserError, match=r"batch is .*, but must be a BatchConfig"):
        Config(batch=TrainingConfig())


FLOATS = [
    f"--{section}.{field}".replace("_", "-")
    for section, settings in vars(Config()).items()
    for field, hint in typing.get_type_hints(type(settings)).items()
    if float in (hint, *typing.get_args(hint))
]


@pytest.mark.parametrize("value", ["nan", "1e400"])
def test_no_flag_takes_a_number_that_is_not_finite(value, capsys):
    assert len(FLOATS) >= 13
    for flag in FLOATS:
        words = ["--config", str(ROOT / "configs/wmt_base.py"), f"{flag}={value}"]
        with pytest.raises(SystemExit) as ended:
            parse_train_arguments(words)
        assert ended.value.code == 2
        assert "must be a finite number" in " ".join(capsys.readouterr().err.split())


def has_the_types_it_says(value: object, hint: object) -> bool:
    """Written apart from the check that is tested."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return value in options and not isinstance(value, bool)
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(isinstance(x, str) for x in value)
    if options:
        return any(has_the_types_it_says(value, option) for option in options)
    if dataclasses.is_dataclass(hint):
        return type(value) is hint and all(
            has_the_types_it_says(getattr(value, name), inner)
            for name, inner in typing.get_type_hints(hint).items()
        )
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is (hint or type(None))


def mutations(draw: random.Random, text: str) -> typing.Iterator[str]:
    """`text` with its values exchanged, its characters changed or its end cut off, for ever."""
    tokens = ["NaN", "1e400", "-1", "0", "1", "2.5", "true", "null", '""', '"x"', "[]", "{}", "[1]",
              "9" * 30, '"\\ud800"', '"../x"', '["a", "b"]', '"TextFiles"', '"pre"']  # fmt: skip
    lines = text.splitlines(keepends=True)
    while True:
        changed = list(lines)
        for _ in range(draw.choice([1, 1, 2, 5])):
            place = draw.randrange(len(changed))
            name, colon, value = changed[place].partition(": ")
            match draw.randrange(6):
                case 0 | 1 if colon and value.strip() not in "[{":
                    comma = "," * value.rstrip().endswith(",")
                    changed[place] = f"{name}: {draw.choice(tokens)}{comma}\n"
                case 2:
                    changed[place] = changed[draw.randrange(len(changed))]
                case 3 if len(changed) > 1:
                    del changed[place]
                case _:
                    line = changed[place]
                    at = draw.randrange(len(line) + 1)
                    new = draw.choice('0123456789.-eE+",:{}[]\\u \0é\n')
                    changed[place] = line[:at] + new + line[at + draw.randrange(2) :]
        whole = "".join(changed)
        yield whole[: draw.randrange(len(whole))] if draw.random() < 0.05 else whole


@pytest.mark.parametrize("corpus", CORPORA)
def test_whatever_the_text_it_is_settings_or_one_error(path, corpus):
    save_config(Config(data=CORPORA[corpus], model=RecurrentConfig()), path)
    loaded = refused = 0
    for text in itertools.islice(mutations(random.Random(corpus), path.read_text()), 1000):
        try:
            config = load_text(path, text)
        except UserError as error:
            assert str(path) in str(error) and len(str(error)) < 1500
            refused += 1
        else:
            assert has_the_types_it_says(config, Config), text
            loaded += 1
    assert min(loaded, refused) > 50
