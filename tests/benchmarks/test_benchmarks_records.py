"""One timing loop, one schema of records, and pages whose commands and links are true."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
RECORDS = sorted(str(path.relative_to(BENCHMARKS)) for path in BENCHMARKS.glob("records/**/*.json"))
PAGES = ("benchmarks/README.md", "benchmarks/notebook.md", "README.md", "CONTRIBUTING.md",
         "docs/comparison.md", "docs/reliability.md", "docs/back_translation.md")  # fmt: skip


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only where a test says so."""
    from benchmarks import timing

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_contenders_take_turns_in_both_orders_and_warm_up(clock):
    from benchmarks.timing import Ratio, in_turns, ratio, total

    order = []

    def contender(name, durations):
        durations = iter(durations)

        def run():
            order.append(name)
            clock.now += next(durations)

        return run

    def wait():
        clock.now += 100  # what comes before a turn takes time that does not count

    contenders = {"a": contender("a", [50, 1, 2, 9]), "b": contender("b", [70, 4, 5, 6])}
    seconds = in_turns(contenders, 3, before=wait)
    assert "".join(order) in ("baabbaab", "abbaabba")
    assert seconds["a"].turns == (1, 2, 9) and seconds["b"].turns == (4, 5, 6)
    assert seconds["a"].median == 2 and seconds["a"].least == 1
    assert ratio(seconds["b"], seconds["a"]) == Ratio(2.5, 4)
    assert total(seconds.values()).turns == (5, 7, 15)
    assert (seconds["a"] / 2).turns == (0.5, 1, 4.5)


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_has_the_one_schema(name):
    from benchmarks.recording import ENTRIES, INSTRUCTION_SETS

    for entry in json.loads((BENCHMARKS / name).read_text(encoding="utf-8")):
        assert tuple(entry) == ENTRIES
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"])
        machine = entry["machine"]
        assert list(machine) == ["processor", "cores", "instruction_sets", "gpu"]
        assert set(machine["instruction_sets"] or ()) <= set(INSTRUCTION_SETS)
        assert {"python", *entry["versions"]} == set(entry["versions"]) and entry["figures"]


def test_a_record_is_added_to(tmp_path, monkeypatch):
    from benchmarks import recording
    from benchmarks.recording import ENTRIES, Recorded, append_record, read_record

    words = ["python3", "-m", "benchmarks.decode", "--source", "/home/me/text.en", "--note", "a b"]
    monkeypatch.setattr(recording.sys, "orig_argv", words)
    path = tmp_path / "folder" / "record.json"
    for number in range(2):
        append_record(Recorded(note="why", record=path), ("numpy", "absent"), {"x": number})
    first, second = read_record(path)
    assert (first["figures"], second["figures"]) == ({"x": 0}, {"x": 1})
    assert tuple(first) == ENTRIES and first["note"] == "why"
    assert first["machine"]["cores"] > 0 and first["machine"]["gpu"] is None
    assert first["versions"]["numpy"] and first["versions"]["absent"] is None
    assert first["command"] == "python -m benchmarks.decode --source text.en --note 'a b'"


def test_a_finished_run_becomes_a_record(tmp_path):
    from benchmarks.record_training import Arguments, main
    from benchmarks.recording import ENTRIES, read_record
    from flax_transformer.config import Config
    from flax_transformer.config.json import save_config

    workdir = tmp_path / "run"
    (workdir / "evaluation").mkdir(parents=True)
    save_config(Config(), workdir / "config.json")
    lines = [
        {"step": 5, "kind": "train", "loss": 4.0, "tokens": 100.0, "tokens_per_second": 50.0},
        {"step": 5, "kind": "validation", "loss": 3.0, "bleu": 7.5, "seconds": 1.4},
        {"step": 9, "kind": "train", "loss": 2.0, "tokens": 80.0, "tokens_per_second": 40.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text)
    scores = {"bleu": 12.5, "test_set": {"sha256": "0"}}
    (workdir / "evaluation" / "test.json").write_text(json.dumps(scores))
    main(Arguments(workdir=workdir, command="python train.py", records=tmp_path / "records"))
    folder = tmp_path / "records" / "run"
    (entry,) = read_record(folder / "record.json")
    assert tuple(entry) == ENTRIES and entry["command"] == "python train.py"
    figures = entry["figures"]
    assert figures["scores"] == {"test": {"bleu": 12.5}}
    assert (figures["training_seconds"], figures["target_tokens"]) == (4, 180)
    assert figures["validation"] == [lines[1]] and len(figures["training"]) == 2
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_commands_to_modules(page):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (path.parent / target).exists(), target
    modules = set(re.findall(r"-m (benchmarks(?:\.\w+)+)", text))
    assert modules or page in ("README.md", "CONTRIBUTING.md")
    for module in modules:
        place = ROOT / module.replace(".", "/")
        assert (place / "__main__.py").exists() or place.with_suffix(".py").exists(), module
    if page != "benchmarks/README.md":  # which says what the commands of old records are now
        assert "python benchmarks/" not in text


def test_every_record_and_command_is_in_the_readme():
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert RECORDS
    for record in RECORDS:
        assert f"({record})" in text, record
    for path in BENCHMARKS.rglob("*.py"):
        if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            assert f"-m {module.removesuffix('.__main__')}" in text, module
