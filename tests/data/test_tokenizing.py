"""Tokenising in several processes: the same ids, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flax_transformer.config import TokenizerConfig
from flax_transformer.data import tokenizing
from flax_transformer.data.tokenizing import BpeDropout, Encoder, encode_pairs
from flax_transformer.errors import UserError
from flax_transformer.text.tokenizer import EOS_ID
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.text.vocabulary_file import load_tokenizer

ROOT = Path(__file__).parents[2]
WORDS = ["the", "cat", "sees", "a", "dog", "house", "über", "near"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    train_tokenizer([" ".join(WORDS)] * 20, TokenizerConfig(vocabulary_size=300), path, 0)
    return path


def some_pairs(count: int) -> list[tuple[str, str]]:
    random = np.random.default_rng(0)
    return [
        (" ".join(random.choice(WORDS, 4)), " ".join(random.choice(WORDS, 6))) for _ in range(count)
    ]


@pytest.mark.parametrize("dropout", [None, BpeDropout(0.3, samples=2, seed=5)])
def test_the_number_of_processes_changes_nothing(model, monkeypatch, dropout):
    monkeypatch.setattr(tokenizing, "_PAIRS_AT_A_TIME", 30)
    pairs = some_pairs(200)
    encoder = Encoder(load_tokenizer(model), np.dtype("<u2"), dropout)
    alone, shared = (encode_pairs(pairs, encoder, "tokens", processes=n) for n in (1, 2))
    assert [len(side) for side in shared] == 2 * [7 * (dropout.samples if dropout else 1)]
    for side, other in zip(alone, shared, strict=True):
        for part, same in zip(side, other, strict=True):
            np.testing.assert_array_equal(part.ids, same.ids)
            np.testing.assert_array_equal(part.lengths, same.lengths)
            assert same.ids.dtype == np.uint16
            assert (same.ids[np.cumsum(same.lengths) - 1] == EOS_ID).all()


def test_few_pairs_start_no_process(model, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a process was started")

    monkeypatch.setattr(tokenizing, "_in_processes", refuse)
    monkeypatch.setattr(tokenizing, "_usable_cores", lambda: 2)
    encoder = Encoder(load_tokenizer(model), np.dtype("<u2"), None)
    pairs = some_pairs(20)
    encode_pairs(pairs, encoder, "tokens")
    monkeypatch.setattr(tokenizing, "_PAIRS_WORTH_PROCESSES", 20)
    with pytest.raises(AssertionError, match="a process was started"):
        encode_pairs(pairs, encoder, "tokens")


def test_a_killed_process_ends_in_advice(model, monkeypatch):
    monkeypatch.setattr(tokenizing, "_PAIRS_AT_A_TIME", 1)
    encoder = Encoder(Deadly(), np.dtype("<u2"), None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="one of 2 tokenising processes ended early"):
        encode_pairs(some_pairs(3), encoder, "tokens", processes=2)


class Deadly:
    """A tokenizer that dies as for want of memory."""

    has_placeholders = False

    @property
    def target(self):
        return self

    def encode(self, texts):
        os.kill(os.getpid(), signal.SIGKILL)


SCRIPT = """
import signal
import sys
from pathlib import Path
import numpy as np
from flax_transformer.commands.command_line import run_command
from flax_transformer.data.tokenizing import Encoder, encode_pairs
from flax_transformer.text.vocabulary_file import load_tokenizer

class Endless:
    def __len__(self):
        return 1 << 40
    def __getitem__(self, chosen):
        print(chosen.start, flush=True)
        return [("the cat", "a dog")] * 1000

def main(words):
    encoder = Encoder(load_tokenizer(Path(words[0])), np.dtype("<u2"), None)
    encode_pairs(Endless(), encoder, "tokens", processes=2)

if __name__ == "__main__":
    run_command(main)
"""


# After 12 lines the first results are there; after 2 the processes are still starting.
@pytest.mark.parametrize(
    ("number", "code", "lines"),
    [(signal.SIGINT, 130, 2), (signal.SIGINT, 130, 12), (signal.SIGKILL, -9, 12)],
)
def test_interruption_ends_every_process_quietly(model, tmp_path, number, code, lines):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(model)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # it would take the cores from all other tests
        raise
    assert process.returncode == code
    assert "Traceback" not in errors  # Python itself reports the semaphores of a killed parent
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a process is left behind")
