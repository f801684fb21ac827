"""A small training run that faults are tried on, and what is asked of it afterwards."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from flax_transformer.checkpoints.loading import load_parameters
from flax_transformer.config import MeshConfig
from flax_transformer.config.json import load_config
from flax_transformer.data.builtin import generate
from flax_transformer.models.initialization import abstract_params
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0
"""Seconds after which a command hangs."""


class Whole(NamedTuple):
    """A run of `steps` that nothing interrupts, to compare with; `folder` is of all runs."""

    folder: Path
    steps: int

    @property
    def workdir(self) -> Path:
        return self.folder / "whole"

    @property
    def cache(self) -> Path:
        """Where all runs keep what they tokenise and compile."""
        return self.folder / "cache"


class Ended(NamedTuple):
    """How a command ended; `code` is None where it did not."""

    code: int | None
    output: str
    errors: str
    seconds: float

    @property
    def lines_of_error(self) -> int:
        return len(self.errors.splitlines())

    @property
    def traceback(self) -> bool:
        return "Traceback" in self.errors + self.output


CONFIG = """
from flax_transformer.config import *

config = Config(
    data=TextFiles(directory={directory!r}, source_language="en", target_language="fr"),
    tokenizer=TokenizerConfig(vocabulary_size=1000),
    batch=BatchConfig(rows=16, source_length=56, target_length=64),
    model=TransformerConfig(
        num_encoder_layers=1, num_decoder_layers=1, d_model=32, num_heads=2, d_ff=64
    ),
    optimizer=OptimizerConfig(warmup_steps=50),
    training=TrainingConfig(
        log_every=1, checkpoint_every=10, evaluate_every=100, validation_sentences=100
    ),
    decoding=DecodingConfig(beam_size=2, extra_length=10),
)
"""


def write_text(folder: Path) -> None:
    """Writes sentences of the built-in grammar, few to validate and test on, and a config."""
    pairs = generate(4000)["train"]
    splits = {"train": pairs, "valid": pairs[:100], "test": pairs[100:120]}
    for name, some in splits.items():
        for language, side in (("en", 0), ("fr", 1)):
            text = "".join(pair[side] + "\n" for pair in some)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    (folder / "small.py").write_text(CONFIG.replace("{directory!r}", repr(str(folder))))


def train_command(workdir: Path, steps: int, *flags: str) -> list[str]:
    """Returns the words of a small run on what `write_text` wrote beside `workdir`."""
    config = workdir.parent / "small.py"
    words = f"train.py --config {config} --workdir {workdir} --training.steps {steps}"
    return [*words.split(), *flags]


def start(words: list[str], cache: Path, **options) -> subprocess.Popen:
    """Starts one of the project's commands, with caches of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=environment, text=True, **(pipes | options)
    )


def finish(process: subprocess.Popen) -> Ended:
    """Waits for the end, which comes by force after PATIENCE."""
    began = time.perf_counter()
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        return Ended(None, output or "", errors or "", PATIENCE)
    return Ended(process.returncode, output or "", errors or "", time.perf_counter() - began)


def wait_until(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Returns once `condition` holds or the process has ended."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and not condition() and time.monotonic() < end:
        time.sleep(0.02)


def last_step(workdir: Path) -> int:
    return max((line["step"] for line in read_metrics(workdir)), default=0)


def parameters(workdir: Path) -> list[np.ndarray]:
    """Reads those of the newest checkpoint."""
    config = load_config(workdir / "config.json")
    decoding = dataclasses.replace(config.decoding, checkpoint="latest")
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    params = load_parameters(
        workdir, dataclasses.replace(config, decoding=decoding), abstract_params(config, mesh)
    ).params
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def differing_arrays(one: Path, other: Path) -> int:
    """Counts the arrays of the parameters of two runs that are not equal bit for bit."""
    pairs = zip(parameters(one), parameters(other), strict=True)
    return sum(not np.array_equal(a, b) for a, b in pairs)
