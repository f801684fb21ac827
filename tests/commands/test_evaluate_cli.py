"""evaluate.py and translate.py on the work directory of a small untrained model."""

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from sacrebleu.tokenizers import tokenizer_ja_mecab
from support.states import save_untrained_run

from flax_transformer.checkpoints.progress import Progress
from flax_transformer.commands import evaluate as evaluate_command
from flax_transformer.commands import translate as translate_command
from flax_transformer.config import (
    Config,
    DecodingConfig,
    TextFiles,
    TokenizerConfig,
    TransformerConfig,
)
from flax_transformer.config.json import save_config
from flax_transformer.errors import UserError
from flax_transformer.evaluation import report
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.translation.translator import Counts

ROOT = Path(__file__).parents[2]
ENGLISH = ["The cat sees the dog.", "A red house.", "", "We eat bread\u2028and apples."]
FRENCH = ["Le chat voit le chien.", "Une maison rouge.", "", "Nous mangeons du pain\u2028ici."]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    for name in ("train", "valid", "test", "other"):
        for language, lines in (("en", ENGLISH), ("fr", FRENCH)):
            text = "".join(f"{line}\n" for line in lines)
            (directory / f"{name}.{language}").write_text(text, encoding="utf-8")
    config = Config(
        data=TextFiles(
            directory=str(directory), source_language="en", target_language="fr",
            test=("test", "other"),
        ),
        tokenizer=TokenizerConfig(vocabulary_size=300),
        model=TransformerConfig(
            num_encoder_layers=1, num_decoder_layers=1, d_model=16, num_heads=2, d_ff=32,
            compute_dtype="float32",
        ),
        decoding=DecodingConfig(
            beam_size=2, extra_length=2, batch_tokens=16, max_source_length=32
        ),
    )  # fmt: skip
    save_untrained_run(directory, config, [*ENGLISH, *FRENCH], steps=(1000, 2000))
    return directory


@pytest.fixture
def evaluate():
    def run(*words):
        evaluate_command.main([str(word) for word in words])

    return run


def start_translating(*words) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "translate.py"), *map(str, words)]
    # One device, which compiles faster.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)


def test_every_test_split_is_scored(evaluate, workdir, capsys):
    evaluate("--workdir", workdir, "--compound-split", "--lowercase")
    shown = capsys.readouterr().out
    for name in ("test", "other"):
        record = json.loads((workdir / "evaluation" / f"{name}.json").read_text())
        assert {"bleu", "chrf", "ter", "compound_split_bleu", "seconds"} <= record.keys()
        assert "case:lc" in record["bleu_signature"]
        assert record["sentences"] == 4
        assert record["checkpoints"] == [1000, 2000]
        assert record["decoding"]["beam_size"] == 2
        assert record["test_set"]["split"] == name
        assert record["tokens_per_second"] == pytest.approx(
            record["target_tokens"] / record["seconds"], rel=0.1
        )
        hypotheses = (workdir / "evaluation" / f"{name}.hypotheses.txt").read_bytes()
        assert hypotheses.count(b"\n") == 4
        assert hypotheses.split(b"\n")[2] == b""
        assert f"{name}: 4 sentences" in shown
    assert "Le chat voit" in shown
    assert not list((workdir / "evaluation").glob("*.partial"))


def test_any_pair_of_files_is_scored(evaluate, workdir, capsys, tmp_path):
    source = tmp_path / "source\udce9.txt.gz"  # a byte that is not UTF-8
    source.write_bytes(gzip.compress(b"The cat.\nA house, and more words.\n"))
    reference = tmp_path / "reference.txt"
    reference.write_text("Le chat.\nUne maison.\n")
    evaluate(
        "--workdir", workdir, "--source", source, "--reference", reference, "--name", "mine",
        "--metrics", "chrf", "bleu",
        "--beam-size", "1", "--average-checkpoints", "1", "--max-source-length", "16",
    )  # fmt: skip
    record = json.loads((workdir / "evaluation" / "mine.json").read_text())
    assert record["checkpoints"] == [2000]
    assert record["decoding"]["beam_size"] == 1
    assert record["sentences_cut"] == 1
    assert "compound_split_bleu" not in record
    assert record["test_set"]["source"] == str(source).replace("\udce9", "\\xe9")
    assert {"bleu", "chrf", "chrf_signature"} <= record.keys()
    assert not {"ter", "ter_signature"} & record.keys()
    shown = capsys.readouterr().out
    assert "1 longer than in training" in shown
    assert "BLEU" in shown and "chrF" in shown and "TER" not in shown


def test_further_files_belong_to_a_test_set(evaluate, workdir, capsys):
    files = ("--baseline", workdir / "test.en", "--extra-references", workdir / "other.fr")
    flags = ("--confidence", "--by-source-length", "--metrics", "bleu", "--name", "more")
    evaluate("--workdir", workdir, "--split", "test", *files, *flags, "--beam-size", "1")
    record = json.loads((workdir / "evaluation" / "more.json").read_text())
    assert record["test_set"]["baseline"] == str(workdir / "test.en")
    assert record["test_set"]["extra_references"] == [str(workdir / "other.fr")]
    assert "nrefs:2|bs:1000" in record["bleu_signature"]
    assert record["baseline"].keys() == {"bleu"}
    assert record["bleu_by_source_length"][0]["sentences"] == 3
    assert "against the baseline's" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--source", "x"), "go together"),
        (("--split", "test", "--source", "x", "--reference", "y"), "exclude"),
        (("--beam-size", "0"), "beam_size is 0"),
        (("--metrics",), "--metrics names none"),
        (("--name", "x"), "one test set"),
        (("--baseline", "x"), "--baseline is for one test set"),
        (("--extra-references", "x"), "--extra-references is for one test set"),
        (("--split", "test", "--baseline", "{}/three"), "--baseline .*three has 3 lines, but test"),
        (("--split", "test", "--extra-references", "{}/three"), "three has 3 lines, but test 4"),
        (("--split", "test", "--baseline", "x", "--metrics", "comet"), "name some of them"),
        (("--metrics", "comet", "--comet-command", "{}/no"), "{}/no, which is not there"),
        (("--name", "../x", "--split", "test"), "--name is '../x', but must be a file name"),
        (("--name", "/tmp/x", "--split", "test"), "--name is '/tmp/x', but must be a file name"),
        (("--name", "n" * 300, "--split", "test"), "--name is 'nnn.* at most 180 bytes"),
        (("--name", "folder/taken", "--split", "test"), "taken.json is a folder, where a file of"),
        (("--name", "plain.json/x", "--split", "test"), "plain.json cannot be created"),
        (("--source", "{}/" + "s" * 230, "--reference", "{}/test.en"), "a test set is 'sss.*180"),
        (("--data.directory", "{}/moved", "--source", "x", "--reference", "y"), "own corpus"),
        (("--data.directory", "{}/nowhere"), "data.directory is .*/nowhere, which is not a folder"),
        (("--split", "tset"), "no split 'tset'"),
        (("--source", "{}/test.en", "--reference", "{}/absent"), "absent"),
        (("--source", "{}/test.en", "--reference", "{}/tokenizer.model"), "not UTF-8"),
        (("--source", "{}/test.en", "--reference", "{}/three"), "3 lines"),
        (("--source", "{}/empty", "--reference", "{}/empty"), "empty"),
    ],
)
def test_mistakes_are_named_before_the_model_is_loaded(
    evaluate, workdir, words, message, monkeypatch
):
    (workdir / "three").write_text("1\n2\n3\n")
    (workdir / "empty").write_text("")
    (workdir / ("s" * 230)).write_bytes((workdir / "test.en").read_bytes())
    (workdir / "evaluation" / "folder" / "taken.json").mkdir(parents=True, exist_ok=True)
    (workdir / "evaluation" / "plain.json").touch()
    words = [word.replace("{}", str(workdir)) for word in words]
    from flax_transformer.evaluation import evaluation

    monkeypatch.delattr(evaluation, "TrainedModel")
    with pytest.raises(UserError, match=message.replace("{}", str(workdir))):
        evaluate("--workdir", workdir, *words)


def test_a_corpus_may_have_moved(evaluate, workdir, tmp_path):
    """Results of a name with a folder lie in a folder, in which nothing else is touched."""
    for language, line in (("en", "A dog.\n"), ("fr", "Un chien.\n")):
        for name in ("train", "valid", "test", "other"):
            (tmp_path / f"{name}.{language}").write_text(line)
    words = ("--data.directory", tmp_path, "--split", "test", "--name", "moved/2014")
    evaluate("--workdir", workdir, *words, "--beam-size", "1")
    record = json.loads((workdir / "evaluation" / "moved" / "2014.json").read_text())
    assert record["sentences"] == 1
    assert record["test_set"]["corpus"]["directory"] == str(tmp_path)
    assert (workdir / "evaluation" / "moved" / "2014.hypotheses.txt").read_text().count("\n") == 1


def test_the_built_in_corpus_cannot_have_moved(evaluate, tmp_path):
    save_config(Config(), tmp_path / "config.json")
    with pytest.raises(UserError, match=r"--data\.directory is x, but .* built-in grammar"):
        evaluate("--workdir", tmp_path, "--data.directory", "x")


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", ""])
def test_results_are_written_below_their_folder_only(tmp_path, name):
    """Wherever the name comes from."""
    test_set = report.TestSet(name=name, origin={}, sources=[], references=[])
    for path in (report.report_path, report.hypotheses_path):
        with pytest.raises(UserError, match="name of a test set is"):
            path(tmp_path, test_set)
    with pytest.raises(UserError, match="name of a test set is"):
        report.make_room(tmp_path, [test_set])


def test_no_results_take_the_place_of_another_sets_folder(tmp_path):
    names = ["a", "a.json/b"]
    sets = [report.TestSet(name=name, origin={}, sources=[], references=[]) for name in names]
    with pytest.raises(UserError, match=r"evaluation/a\.json is a folder"):
        report.make_room(tmp_path, sets)


def test_an_empty_work_directory_is_a_mistake(evaluate, tmp_path):
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        evaluate("--workdir", tmp_path)


def test_an_untrained_run_is_a_mistake(evaluate, workdir, tmp_path):
    for name in ("config.json", "tokenizer.model"):
        (tmp_path / name).write_bytes((workdir / name).read_bytes())
    with pytest.raises(UserError, match="checkpoints"):
        evaluate("--workdir", tmp_path)


def with_bleu_tokenizer(workdir, name: str | None, language: str):
    """The run's settings, with `name` as its tokenizer; None as an earlier version left them."""
    values = json.loads((workdir / "config.json").read_text())
    values["data"]["target_language"] = language
    if name is None:
        del values["training"]["bleu_tokenizer"]
    else:
        values["training"]["bleu_tokenizer"] = name
    return json.dumps(values)


@pytest.mark.parametrize(
    ("stored", "language", "words", "tokenizer"),
    [
        (None, "zh", (), "zh"),
        (None, "fr", (), "13a"),
        ("auto", "tha_Thai", (), "char"),
        ("char", "zh", (), "char"),
        ("intl", "zh", ("--tokenize", "auto"), "intl"),
        ("char", "zh", ("--tokenize", "none"), "none"),
        ("13a", "fr", ("--tokenize", "intl"), "intl"),
    ],
)
def test_bleu_is_taken_as_in_training_or_as_is_asked_for(
    evaluate, workdir, tmp_path, monkeypatch, stored, language, words, tokenizer
):
    from flax_transformer.evaluation import evaluation

    (tmp_path / "config.json").write_text(with_bleu_tokenizer(workdir, stored, language))
    monkeypatch.setattr(evaluation, "TrainedModel", Shouting)
    files = ("--source", workdir / "test.en", "--reference", workdir / "test.fr", "--name", "x")
    evaluate("--workdir", tmp_path, *files, "--metrics", "bleu", *words)
    signature = json.loads((tmp_path / "evaluation" / "x.json").read_text())["bleu_signature"]
    assert f"|tok:{tokenizer}|" in signature


def test_what_is_not_installed_is_named_before_the_model_is_loaded(
    evaluate, workdir, tmp_path, monkeypatch
):
    """Where no score needs it, nothing is asked for."""
    from flax_transformer.evaluation import evaluation

    monkeypatch.setattr(tokenizer_ja_mecab, "MeCab", None)
    (tmp_path / "config.json").write_text(with_bleu_tokenizer(workdir, "ja-mecab", "ja"))
    files = ("--source", workdir / "test.en", "--reference", workdir / "test.fr", "--name", "x")
    words = ("--workdir", tmp_path, *files)
    with monkeypatch.context() as patch:
        patch.delattr(evaluation, "TrainedModel")
        with pytest.raises(UserError, match=r"(?s)ja-mecab .*'sacrebleu\[ja\]'.*--tokenize"):
            evaluate(*words)
    monkeypatch.setattr(evaluation, "TrainedModel", Shouting)
    evaluate(*words, "--metrics", "chrf")
    evaluate(*words, "--tokenize", "char", "--metrics", "bleu")


@pytest.mark.parametrize("words", [("--tokenize", "14a"), ("--beam-sise", "2")])
def test_wrong_values_and_names_exit_with_code_2(evaluate, workdir, words, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate("--workdir", workdir, *words)
    assert stop.value.code == 2
    assert words[0].strip("-").replace("-", "_")[:8] in capsys.readouterr().err.replace("-", "_")


def test_lines_are_answered_as_they_come(workdir):
    process = start_translating("--workdir", workdir, "--n-best", "2")
    # The answer to the first line is there before the second is written.
    process.stdin.write(b"The cat.\n")
    process.stdin.flush()
    answer = [process.stdout.readline().decode() for _ in range(2)]
    assert all(line.startswith("1 ||| ") for line in answer)
    scores = [float(line.split(" ||| ")[2]) for line in answer]
    assert scores[0] >= scores[1]
    rest, errors = process.communicate("\r\nA\u2028red house.\n\nlast".encode(), timeout=240)
    lines = rest.decode().removesuffix("\n").split("\n")
    assert [line.split(" ||| ")[0] for line in lines] == ["2", "3", "3", "4", "5", "5"]
    assert lines[0].split(" ||| ")[1] == lines[3].split(" ||| ")[1] == ""
    assert process.returncode == 0
    assert errors == b""


def test_lines_before_a_broken_one_still_come_out(workdir):
    process = start_translating("--workdir", workdir)
    output, errors = process.communicate(b"The cat.\nA red house.\ncaf\xe9\nnever\n", timeout=240)
    assert output.count(b"\n") == 2
    assert process.returncode == 2
    assert errors.decode().startswith("error: standard input line 3 is not UTF-8 (byte 0xe9)")
    assert "Traceback" not in errors.decode()


class Shouting:
    """A model that needs no training, and translates into capitals."""

    def __init__(self, workdir, config, others=(), risk_metric=None):
        self.others, self.risk_metric = others, risk_metric
        self.translator = SimpleNamespace(counts=Counts())
        self.notes = []
        self.steps, self.choice, self.config = [1], "latest", config
        self.progress = Progress(tokenizer="")

    def translate(self, lines, progress=None):
        return [best.text for (best,) in self.search(lines)]

    def search(self, lines, prefixes=None, tags=None, required=None, progress=None):
        return [[Hypothesis(line.upper(), 0.0, 1)] for line in lines]


@pytest.fixture
def shout(monkeypatch, tmp_path):
    """translate.py from in.txt to out.txt, as on a terminal."""
    from flax_transformer.translation import trained_model

    monkeypatch.setattr(trained_model, "TrainedModel", Shouting)
    save_config(Config(), tmp_path / "config.json")

    def run(content: bytes) -> str:
        (tmp_path / "in.txt").write_bytes(content)
        terminal = io.StringIO()
        terminal.isatty = lambda: True
        monkeypatch.setattr(sys, "stderr", terminal)
        files = ["--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out.txt")]
        translate_command.main(["--workdir", str(tmp_path), *files])
        return terminal.getvalue()

    return run


def test_from_file_to_file_behind_one_bar(shout, tmp_path):
    shown = shout("\ufeffThe cat.\r\n\nA\u2028red house.\nlast".encode())
    assert (tmp_path / "out.txt").read_text() == "THE CAT.\n\nA\u2028RED HOUSE.\nLAST\n"
    assert "Translating: 100%" in shown and "4/4" in shown
    shown = shout(b"one\n" * 1500)
    assert (tmp_path / "out.txt").read_text() == "ONE\n" * 1500
    assert "1500/1500" in shown
    shout(b"")
    assert (tmp_path / "out.txt").read_text() == ""


def test_a_file_of_translations_is_whole_or_as_it_was(shout, tmp_path):
    for before in (None, "before"):
        if before:
            (tmp_path / "out.txt").write_text(before)
        with pytest.raises(UserError, match=r"in\.txt line 2 is not UTF-8 \(byte 0xe9"):
            shout(b"The cat.\ncaf\xe9\n")
        assert not before or (tmp_path / "out.txt").read_text() == before
        assert (tmp_path / "out.txt").exists() == bool(before)
        assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--input", "{}/absent"), "--input {}/absent cannot be read: No such file"),
        (("--output", "{}/absent/out"), "--output {}/absent/out cannot be written: No such file"),
        (("--output", "{}"), "--output {} is a folder"),
    ],
)
def test_files_are_checked_before_the_model_is_loaded(tmp_path, words, message):
    save_config(Config(), tmp_path / "config.json")  # and no model
    words = [word.replace("{}", str(tmp_path)) for word in words]
    with pytest.raises(UserError, match=message.replace("{}", str(tmp_path))):
        translate_command.main(["--workdir", str(tmp_path), *words])


@pytest.mark.parametrize("n_best", [0, 3])
def test_no_more_translations_than_beams(workdir, n_best):
    process = start_translating("--workdir", workdir, "--n-best", n_best)
    output, errors = process.communicate(b"", timeout=240)
    assert (process.returncode, output) == (2, b"")
    assert f"--n-best is {n_best}" in errors.decode()
