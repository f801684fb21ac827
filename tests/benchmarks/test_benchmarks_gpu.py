"""The GPU's benchmark as far as it goes without one: its parts, and the whole at a tiny size."""

import json
import time
from pathlib import Path

import jax.numpy as jnp
import pytest

from flax_transformer.data.builtin import generate
from flax_transformer.errors import UserError
from flax_transformer.ops import kernels as ops_kernels

ROOT = Path(__file__).parents[2]
TINY = (
    "--rows 2 --length 64 --d-model 32 --num-heads 2 --vocabulary-size 100 --timed-rows 2 "
    "--timed-calls 1"
)


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu import kernels

    return kernels


@pytest.fixture
def stages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import stages

    return stages


def test_kernels_that_are_right_are_recorded(kernels, tmp_path, capsys):
    record = tmp_path / "record.json"
    kernels.main([*TINY.split(), "--record", str(record)])
    figures = json.loads(record.read_text())[0]["figures"]
    assert figures["neighbours_unseen"] and len(figures["errors"]) == 4
    assert figures["attention_ms"].keys() == {"as the model takes it", "the formula"}
    said = capsys.readouterr().out
    assert "WRONG" not in said and "ms with its gradient" in said


def wrong_loss(*arguments, **settings):
    found = ops_kernels.cross_entropy_reference(*arguments, **settings)
    return found._replace(loss=1.05 * found.loss)


def seeing_attention(formula, query, key, value, query_segments, key_segments, causal):
    one_sentence = jnp.ones_like(query_segments)
    return ops_kernels.attention_reference(
        formula, query, key, value, one_sentence, one_sentence, causal
    )


@pytest.mark.parametrize(
    ("broken", "message"),
    [({"cross_entropy": wrong_loss}, "cross entropy"), ({"attention": seeing_attention}, "SEEN")],
)
def test_kernels_that_are_wrong_are_named(kernels, tmp_path, monkeypatch, capsys, broken, message):
    monkeypatch.setattr(ops_kernels, "FAST", ops_kernels.FAST._replace(**broken))
    ops_kernels.ops_for.cache_clear()
    try:
        with pytest.raises(UserError, match="wrong on this device"):
            kernels.main([*TINY.split(), "--record", str(tmp_path / "record.json")])
    finally:
        ops_kernels.ops_for.cache_clear()
    said = capsys.readouterr().out
    assert message in said and "WRONG" in said
    assert not (tmp_path / "record.json").exists()


def test_a_stage_is_run_once(stages, tmp_path, capfd):
    result = tmp_path / "result"
    words = ["-c", f"open({str(result)!r}, 'w').write('x'); print('working')"]
    stages.run_stage("one", words, result)
    stages.run_stage("one", words, result)
    said = capfd.readouterr().out
    assert said.count("\nworking\n") == 1 and "done before" in said


def test_a_stage_without_a_result_is_an_error(stages, tmp_path):
    for words in (["-c", "pass"], ["-c", "raise SystemExit(3)"]):
        with pytest.raises(UserError, match=r"one ended with code [03]; the same command"):
            stages.run_stage("one", words, tmp_path / "result")


def test_a_stage_is_asked_to_stop_at_the_deadline(stages, tmp_path, monkeypatch):
    result, saved = tmp_path / "result", tmp_path / "saved"
    program = (
        "import signal, sys, time\n"
        f"def save(*_): open({str(saved)!r}, 'w').close(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(stages, "_SECONDS_TO_SAVE", 1)
    start = time.monotonic()
    with pytest.raises(stages.OutOfTimeError):
        stages.run_stage("one", ["-c", program], result, stages.Deadline.in_minutes(4 / 60))
    assert saved.exists() and time.monotonic() - start < 30
    with pytest.raises(stages.OutOfTimeError):
        stages.run_stage("one", ["-c", "raise SystemExit(9)"], result, stages.Deadline(0))


@pytest.mark.slow
def test_the_whole_at_a_tiny_size(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu import __main__ as gpu

    pairs = generate(3000)
    for name, split in (
        ("train-1of4", "train"), ("valid", "validation"), ("test", "test"),
        ("newstest2013", "test"), ("newstest2014.en-fr", "test"),
    ):  # fmt: skip
        for side, language in enumerate(("en", "fr")):
            lines = [pair[side] for pair in pairs[split]][: 3000 if name == "train-1of4" else 8]
            (tmp_path / f"{name}.{language}").write_text("".join(f"{line}\n" for line in lines))
    words = ["--small", "--workdir", str(tmp_path / "work"), "--record", str(tmp_path / "gpu.json")]
    words += ["--europarl", str(tmp_path), "--newstest", str(tmp_path)]
    gpu.main(words)
    figures = json.loads((tmp_path / "gpu.json").read_text())[0]["figures"]
    assert set(figures["europarl"]) == {"test", *gpu.TESTS}
    predicted = figures["prediction_base"]
    assert predicted["bytes_moved"] > 0 and len(predicted["search"]["positions"]) > 1
    gpu.main(words)  # of which nothing is measured again
    assert "done before" in capsys.readouterr().out
