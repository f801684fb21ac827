"""The comparison of architectures: from text files to tables and pictures, stopped on the way."""

import dataclasses
import json
import signal
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from flax_transformer.config import Config, TextFiles
from flax_transformer.data.builtin import generate
from flax_transformer.errors import UserError
from flax_transformer.evaluation import report
from flax_transformer.parallel import console
from flax_transformer.training.metrics import read_metrics
from flax_transformer.training.train_loop import Trainer
from flax_transformer.workdir import METRICS_FILE

pytestmark = pytest.mark.usefixtures("quick")

ROOT = Path(__file__).parents[2]
TINY = (
    "--systems lstm_dot transformer --pairs 200 --minutes 0.20833 --validations 2 "
    "--model.num-encoder-layers 1 --model.num-decoder-layers 1 --model.d-model 16 "
    "--model.num-heads 2 --model.d-ff 32 --model.unroll-layers 1 "
    "--tokenizer.vocabulary-size 800 --batch.rows 8 --batch.source-length 24 "
    "--batch.target-length 24 --decoding.beam-size 2 --decoding.extra-length 2 "
    "--decoding.max-source-length 64 --sentence Yes. --translation Oui. --note tiny"
)
"""12.5 seconds of training for each of two systems."""


@pytest.fixture
def compare(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.compare import __main__

    return __main__


def short_pairs() -> list[tuple[str, str]]:
    """Of few enough pieces that search compiles one shape only."""
    return [pair for pair in generate(4000)["train"] if len(pair[0].split()) <= 5]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A corpus, and in the folder `further` beside it another test set."""
    folder = tmp_path_factory.mktemp("text")
    pairs = short_pairs()
    parts = {"train": pairs[:300], "valid": pairs[300:310], "test": pairs[310:320]}
    parts["further/test"] = pairs[320:330]
    (folder / "further").mkdir()
    for name, some in parts.items():
        for side, language in enumerate(("en", "fr")):
            text = "".join(pair[side] + "\n" for pair in some)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def one_device(monkeypatch):
    """Instead of eight, which take far longer to compile for; other tests see to them."""
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: first)
    monkeypatch.setattr(jax, "local_devices", lambda: first)


@pytest.fixture
def one_second_a_step(monkeypatch):
    """A clock of its own for training: every step takes a second, and nothing else takes any."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(console, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def step(self):
        clock.now += 1.0

    monkeypatch.setattr(console.Console, "step", step)


def stop_after(monkeypatch, step: int) -> None:
    """SIGTERM, as of a machine that goes down, during `step`."""
    take_step = Trainer.take_step

    def stopped(self, batch):
        take_step(self, batch)
        if self.run.step == step:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Trainer, "take_step", stopped)


def curve_of(workdir: Path) -> list[tuple[int, float]]:
    from benchmarks.compare.training import learning_curve

    return [(point.step, point.seconds) for point in learning_curve(read_metrics(workdir))]


@pytest.mark.slow
def test_from_text_to_tables_with_a_stop_on_the_way(
    compare, corpus, tmp_path, monkeypatch, capsys, one_device, one_second_a_step
):
    workdir, record = tmp_path / "runs", tmp_path / "records" / "tiny.json"
    words = [
        *TINY.split(), "--data.directory", str(corpus), "--further-tests", str(corpus / "further"),
        "--workdir", str(workdir), "--record", str(record),
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        compare.main(words)
    assert not record.exists() and not (workdir / "transformer").exists()
    # Of what comes before the first step, such as compiling it, no time is counted.
    assert [line["step"] for line in read_metrics(workdir / "lstm_dot")] == [5, 7]

    compare.main(words)
    # A second a step, also where the run goes on after step 7 and compiles again.
    expected = {"lstm_dot": [(10, 10), (15, 15)], "transformer": [(10, 10), (15, 15)]}
    for system, curve in expected.items():
        assert curve_of(workdir / system) == [(step, pytest.approx(s)) for step, s in curve]
    output = capsys.readouterr().out
    assert "| lstm_dot | " in output and "BLEU on further_test by words" in output
    # After 5 steps and 5 seconds, of 12.5.
    assert "step 10 of 12:" in output
    (entry,) = json.loads(record.read_text())
    check_figures(entry, expected)
    pictures = {path.name for path in record.parent.glob("*.png")}
    assert pictures == {f"{x}.png" for x in ("learning_curves", "bleu_by_length", "alignments")}
    assert len((workdir / "corpus_200_pairs_seed_0" / "train.en").read_text().splitlines()) == 200

    # All is there: nothing is trained or scored again.
    monkeypatch.setattr(Trainer, "take_step", None)
    before = {path: path.stat().st_mtime_ns for path in workdir.glob("*/evaluation/*")}
    arguments = compare.parse(words)
    shared = compare.shared_config(arguments, compare.drawn_or_whole(arguments))
    sets = compare.test_sets(shared, arguments.further_tests)
    assert list(compare.train_and_score(arguments, shared, sets)) == list(expected)
    assert len(before) == 8
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_scored_is_not_scored_again(compare, tmp_path, monkeypatch):
    from flax_transformer.evaluation import evaluation

    config = Config()
    sets = [
        report.TestSet(name=name, origin={"sha256": name}, sources=[], references=[])
        for name in ("one", "other")
    ]
    (tmp_path / METRICS_FILE).write_text(json.dumps({"kind": "training", "step": 9}) + "\n")
    record = {
        "checkpoints": [8, 9],
        "decoding": dataclasses.asdict(config.decoding),
        "test_set": sets[0].origin,
    }
    path = report.report_path(tmp_path, sets[0])
    path.parent.mkdir()
    path.write_text(json.dumps(record))
    scored = []
    monkeypatch.setattr(
        evaluation, "report_on", lambda *arguments, samples: scored.append(arguments)
    )
    compare.score_system(config, tmp_path, sets)
    assert [missing for *_, missing in scored] == [sets[1:]]


def check_figures(entry: dict, curves: dict) -> None:
    assert entry["note"] == "tiny" and entry["figures"]["pairs"] == 200
    entry = entry["figures"]
    losses = [found["curve"][-1]["loss"] for found in entry["systems"].values()]
    assert entry["target_loss"] == max(losses)
    for system, found in entry["systems"].items():
        seconds = curves[system][-1][1]
        assert found["steps"] == 15 and found["training_seconds"] == pytest.approx(seconds)
        assert found["tokens_per_second"] == pytest.approx(found["target_tokens"] / seconds)
        assert 0 < found["seconds_to_target_loss"] <= seconds + 1e-6
        for scores in found["test_sets"].values():
            assert scores["sentences"] == 10 and scores["sentences_cut"] == 0
            bins = scores["by_source_words"]
            assert sum(one["sentences"] for one in bins) == 10 and bins[0]["too_few"]
        rows = entry["alignments"][system]["weights"]
        assert all(sum(row) == pytest.approx(1, abs=0.01) for row in rows)


def test_all_systems_have_about_as_many_parameters(compare):
    from benchmarks.compare.arguments import parse, shared_config
    from benchmarks.compare.systems import configurations, parameters

    arguments = parse(["--data.directory", "nowhere"])
    found = configurations(shared_config(arguments, arguments.data), arguments.systems, 0.3)
    assert len(found) == 6
    counts = {system: parameters(config) for system, config in found.items()}
    assert max(counts.values()) < 1.1 * min(counts.values()), counts
    kinds = [config.model.attention for name, config in found.items() if name != "transformer"]
    assert kinds == ["none", "dot", "general", "concat", "multi_head"]
    assert found["lstm_dot"].model.dropout == 0.3 and found["transformer"].model.dropout == 0.1
    # No line is cut into pieces for some of them only.
    assert len({config.decoding for config in found.values()}) == 1


def test_seconds_to_a_loss_lie_between_two_validations(compare):
    from benchmarks.compare.training import Point, seconds_to_loss

    curve = [Point(0, 10.0, 4.0, 0.0), Point(0, 20.0, 3.0, 0.0), Point(0, 30.0, 2.0, 0.0)]
    assert seconds_to_loss(curve, 2.5) == pytest.approx(25.0)
    assert seconds_to_loss(curve, 5.0) == 10.0
    assert seconds_to_loss(curve, 1.0) is None


def test_what_cannot_be_compared_is_said_before_any_training(compare, corpus, tmp_path):
    data = TextFiles(directory=str(corpus), source_language="en", target_language="fr")
    with pytest.raises(UserError, match=r"301, but .* has 300 to train"):
        compare.draw_pairs(data, 301, 0, tmp_path)
    with pytest.raises(UserError, match="which is not a folder"):
        compare.main(
            ["--data.directory", str(corpus), "--workdir", str(tmp_path / "runs"),
             "--further-tests", str(tmp_path / "absent")]
        )  # fmt: skip
    shared = dataclasses.replace(data, test=("test",))
    config = SimpleNamespace(data=shared)
    with pytest.raises(UserError, match="two test sets are called further_test"):
        compare.test_sets(config, [corpus / "further", corpus / "further"])


def test_drawn_pairs_belong_together_and_follow_the_seed(compare, corpus, tmp_path):
    data = TextFiles(directory=str(corpus), source_language="en", target_language="fr")
    pairs = short_pairs()[:300]
    texts = {}
    for seed in (0, 1):
        drawn = Path(compare.draw_pairs(data, 50, seed, tmp_path).directory)
        sides = [(drawn / f"train.{x}").read_text().split("\n")[:-1] for x in ("en", "fr")]
        texts[seed] = list(zip(*sides, strict=True))
        assert len(texts[seed]) == 50 and set(texts[seed]) <= set(pairs)
        assert (drawn / "valid.fr").read_text() == (corpus / "valid.fr").read_text()
    assert texts[0] != texts[1]
