"""The back-translation benchmark: its text, its commands and its record, without any training."""

import json
from pathlib import Path

import pytest

from flax_transformer.commands.command_line import parse_train_arguments
from flax_transformer.errors import UserError

ROOT = Path(__file__).parents[2]
BLEU = {"baseline": 10.0, "reverse": 7.0, "mixed": 12.5}


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import back_translation

    return back_translation


@pytest.fixture
def stages(benchmark):
    """What runs the commands of benchmarks."""
    from benchmarks import stages

    return stages


@pytest.fixture
def commands(stages, monkeypatch):
    """The commands that the benchmark runs; each only leaves what it is there for."""
    ran = []

    def run(words, seconds):
        ran.append(words)
        if words[0] == "translate.py":
            lines = Path(value_of("--input", words)).read_text().splitlines()
            Path(value_of("--output", words)).write_text("made\n" * len(lines))
            return 0
        workdir = Path(value_of("--workdir", words))
        (workdir / "evaluation").mkdir(parents=True)
        record = {"bleu": BLEU[workdir.name], "bleu_signature": "s", "chrf": 1.0}
        (workdir / "evaluation" / "test.json").write_text(json.dumps(record))
        line = {"step": 1, "kind": "validation", "bleu": 20.0}
        (workdir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        return 0

    monkeypatch.setattr(stages, "exit_code_of", run)
    return ran


def value_of(flag, words):
    return words[words.index(flag) + 1]


@pytest.fixture
def words(tmp_path):
    """Arguments for 30 training pairs, of which some share a target and one is scored."""
    for name, count in (("train", 30), ("valid", 3), ("dev", 2)):
        for language in ("en", "fr"):
            lines = [f"{language} {name} {i}" for i in range(count)]
            if name == "train" and language == "fr":
                lines[4:8] = ["fr train 3", "fr dev 1", "", "fr valid 0"]
            (tmp_path / f"{name}.{language}").write_text("".join(f"{line}\n" for line in lines))
    return (
        f"--directory {tmp_path} --source-language en --target-language fr --test dev "
        f"--workdir {tmp_path}/work --config {ROOT}/configs/tatoeba_en_fr.py "
        f"--pairs 10 --lines 15 --steps 80 --record {tmp_path}/record.json"
    ).split()


def test_text_is_drawn_without_what_is_scored(benchmark, commands, words, tmp_path):
    benchmark.main(words)
    data = tmp_path / "work" / "data"
    texts = {path.name: path.read_text().splitlines() for path in data.iterdir()}
    assert len(texts["true.en"]) == len(texts["true.fr"]) == 10
    mono = texts["mono.fr"]
    assert texts["synthetic.fr"] == mono and texts["synthetic.en"] == ["made"] * len(mono)
    assert 10 < len(mono) == len(set(mono)) <= 15
    assert not {"", "fr dev 1", "fr valid 0"} & set(mono)
    numbers = [int(line.split()[-1]) for line in texts["true.en"]]
    assert numbers != sorted(numbers), "the order of the file may be that of difficulty"
    assert not {f"fr train {number}" for number in numbers if number not in range(3, 8)} & set(mono)
    assert texts["test.en"] == ["en dev 0", "en dev 1"] and len(texts["valid.fr"]) == 3


def test_commands_differ_where_they_must(benchmark, commands, words, tmp_path):
    benchmark.main(words)
    assert [command[0] for command in commands] == ["train.py"] * 2 + ["translate.py", "train.py"]
    baseline, reverse, mixed = (
        parse_train_arguments(command[1:]).settings
        for command in commands
        if command[0] == "train.py"
    )
    assert (reverse.data.source_language, reverse.data.target_language) == ("fr", "en")
    assert (reverse.batch.source_length, reverse.batch.target_length) == (64, 56)
    assert baseline.data.train == reverse.data.train == ("true",)
    assert mixed.data.train == ("true,weight=5", "synthetic,tag=<bt>")
    assert (baseline.batch, baseline.training) == (mixed.batch, mixed.training)
    assert baseline.training.steps == 80 and baseline.optimizer == mixed.optimizer
    record = json.loads((tmp_path / "record.json").read_text())[-1]["figures"]
    assert record["bleu_gain"] == 2.5 and record["results"]["reverse"]["bleu"] == 7.0


def test_a_rerun_does_what_is_missing(benchmark, commands, words, tmp_path):
    benchmark.main(words)
    commands.clear()
    (tmp_path / "work" / "mixed" / "evaluation" / "test.json").unlink()
    (tmp_path / "work" / "mixed" / "evaluation").rmdir()
    benchmark.main(words)
    assert [Path(value_of("--workdir", command)).name for command in commands] == ["mixed"]
    with pytest.raises(UserError, match=r"arguments\.json has other arguments"):
        benchmark.main([*words, "--weight", "2"])


def test_a_failed_stage_ends_the_benchmark(benchmark, stages, words, monkeypatch, tmp_path):
    monkeypatch.setattr(stages, "exit_code_of", lambda words, seconds: 3)
    with pytest.raises(UserError, match="baseline ended with code 3"):
        benchmark.main(words)
    assert not (tmp_path / "record.json").exists()
    with pytest.raises(UserError, match="--pairs 30 leaves no monolingual line"):
        benchmark.main([*words, "--pairs", "30", "--workdir", str(tmp_path / "other")])
