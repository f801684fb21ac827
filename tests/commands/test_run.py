"""A whole run through train.py: resuming, stopping, refusing."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from support.states import load_chosen

from flax_transformer.checkpoints.files import list_steps
from flax_transformer.config import MeshConfig
from flax_transformer.config.json import load_config
from flax_transformer.data.builtin import generate
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.runtime.quick_compilation import QUICK_FLAGS
from flax_transformer.training.metrics import read_metrics

ROOT = Path(__file__).parents[2]

CONFIG = """
from flax_transformer.config import *

config = Config(
    data=TextFiles(
        directory={directory!r}, source_language="en", target_language="fr", test=("test", "other"),
    ),
    tokenizer=TokenizerConfig(vocabulary_size=400),
    batch=BatchConfig(rows=8, source_length=48, target_length=48),
    model=TransformerConfig(
        num_encoder_layers=1, num_decoder_layers=1, d_model=16, num_heads=2, d_ff=32,
    ),
    optimizer=OptimizerConfig(warmup_steps=10),
    training=TrainingConfig(
        steps=40, log_every=1, evaluate_every=20, validation_sentences=4, checkpoint_every=4,
        keep_checkpoints=2,
    ),
    mesh=MeshConfig(data=1),
    decoding=DecodingConfig(beam_size=1, extra_length=2, average_checkpoints=2),
)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.py").write_text(CONFIG.replace("{directory!r}", repr(str(folder))))
    pairs = generate(800)["train"]
    parts = {"train": pairs, "valid": pairs[:20], "test": pairs[20:40], "other": pairs[40:42]}
    for name, some in parts.items():
        for language, side in (("en", 0), ("fr", 1)):
            text = "".join(pair[side] + "\n" for pair in some)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return folder


def start(place: Path, workdir: str, *flags: str) -> subprocess.Popen:
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(place / "cache"),
        "XLA_FLAGS": QUICK_FLAGS,
    }
    words = ["train.py", "--config", str(place / "tiny.py"), "--workdir", str(place / workdir)]
    return subprocess.Popen(
        [sys.executable, *words, *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, code: int = 0) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    return output


def wait_for_step(place: Path, workdir: str, step: int) -> None:
    """Returns once the run has written the metrics of `step`."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        lines = read_metrics(place / workdir)
        if lines and lines[-1]["step"] >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached")


def parameters(workdir: Path, average: int = 1):
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    config = load_config(workdir / "config.json")
    decoding = dataclasses.replace(config.decoding, average_checkpoints=average)
    loaded = load_chosen(workdir, dataclasses.replace(config, decoding=decoding), mesh)
    return loaded.params, loaded.steps


@pytest.fixture(scope="module")
def uninterrupted(place: Path) -> str:
    return finish(start(place, "whole"))


def test_run_reports_and_keeps_what_it_should(place, uninterrupted):
    kinds = [line["kind"] for line in read_metrics(place / "whole")]
    assert kinds.count("train") == 40 and kinds.count("validation") == 2
    assert {path.name for path in (place / "whole" / "checkpoints").iterdir()} == {"36", "40"}
    assert len(list((place / "whole" / "best").iterdir())) == 1
    record = json.loads((place / "whole" / "evaluation" / "test.json").read_text())
    assert record["sentences"] == 20 and record["checkpoints"] == [36, 40]
    assert uninterrupted.count("  reference ") == 10 + 2
    assert "python translate.py --workdir" in uninterrupted
    (seconds,) = re.findall(r"Compiled in (\d+\.\d) s", uninterrupted)
    assert float(seconds) > 0


def test_killed_run_ends_with_the_same_parameters(place, uninterrupted):
    process = start(place, "killed")
    wait_for_step(place, "killed", 22)  # between checkpoints, just after a validation
    process.send_signal(signal.SIGKILL)
    process.communicate()
    compiled = place / "cache" / "flax_transformer" / "compiled"
    before = {path.name for path in compiled.iterdir()}
    finish(start(place, "killed"))
    # All that the last start needed had been kept: it compiled nothing.
    assert any(name.startswith("jit_train_step") for name in before)
    assert {path.name for path in compiled.iterdir()} == before
    chex.assert_trees_all_equal(parameters(place / "killed"), parameters(place / "whole"))
    chex.assert_trees_all_equal(parameters(place / "killed", 2), parameters(place / "whole", 2))

    def without_times(line):
        return {k: v for k, v in line.items() if k not in ("tokens_per_second", "seconds")}

    killed, whole = (
        [without_times(line) for line in read_metrics(place / name)] for name in ("killed", "whole")
    )
    assert [line["step"] for line in killed] == [line["step"] for line in whole]
    assert [line for line in killed if line["kind"] == "validation"] == [
        line for line in whole if line["kind"] == "validation"
    ]


def test_sigterm_saves_and_exits_with_its_code(place, uninterrupted):
    process = start(place, "stopped")
    wait_for_step(place, "stopped", 5)
    process.send_signal(signal.SIGTERM)
    output = finish(process, 128 + signal.SIGTERM)
    assert "the same command goes on from there" in output
    latest = max(int(path.name) for path in (place / "stopped" / "checkpoints").iterdir())
    assert 5 <= latest < 40
    assert f"Going on after step {latest}." in finish(start(place, "stopped"))
    # Averages as well: a checkpoint made by the interruption must not take part in them.
    chex.assert_trees_all_equal(parameters(place / "stopped", 2), parameters(place / "whole", 2))


def test_complete_run_says_so_and_scores_only_what_is_missing(place, uninterrupted):
    there, missing = (place / "whole" / "evaluation" / f"{x}.json" for x in ("test", "other"))
    before = there.stat().st_mtime_ns
    missing.unlink()
    assert "This run is complete: 40 steps are done." in finish(start(place, "whole"))
    assert there.stat().st_mtime_ns == before and missing.exists()


def test_a_step_that_is_not_finite_ends_the_run_and_is_not_kept(place):
    """Saved and validated at every step, so that whatever is not finite would be."""
    every = ("log-every", "evaluate-every", "checkpoint-every")
    flags = [word for name in every for word in (f"--training.{name}", "1")]
    process = start(place, "diverged", "--optimizer.learning-rate-scale", "1e30", *flags)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 2 and "Traceback" not in errors
    found = re.search(
        r"error: the (?:loss|gradient|parameters) became infinite or not a number in step (\d+)\. "
        r"Step (\d+) is the newest checkpoint in .*, and finite; nothing was written since",
        errors,
    )
    assert found, errors
    bad, newest = map(int, found.groups())
    assert newest == bad - 1
    assert [line["step"] for line in read_metrics(place / "diverged")][-1] == newest
    for name in ("checkpoints", "best"):
        steps = list_steps(place / "diverged" / name)
        assert steps and max(steps) <= newest
    params, steps = parameters(place / "diverged")
    assert steps == [newest]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_changed_settings_are_refused_by_name(place, uninterrupted):
    process = start(place, "whole", "--optimizer.warmup-steps", "11", "--model.d-ff", "64")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 2
    assert "optimizer.warmup_steps: 10 -> 11" in errors and "model.d_ff: 32 -> 64" in errors
    assert "Traceback" not in errors
