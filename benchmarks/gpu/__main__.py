"""All that only a GPU can tell, in one command: is it right, how fast, how good.

    python -m benchmarks.gpu --europarl DIR --newstest DIR
    python -m benchmarks.gpu --europarl DIR --newstest DIR --minutes 9  # in pieces: give it again

Takes 25 minutes on an H100, or pieces of `--minutes` of which each goes on where the last stopped:

1. every kernel beside the lines that it replaces (benchmarks/gpu/kernels.py)
2. training steps of the base and the big model, beside PyTorch where it is installed, and what the
   dry run says of both
3. beam search of the base model, beside CTranslate2 where it is installed
4. the base model on a quarter of Europarl for ten minutes, its BLEU on newstest2013 and 2014

Nothing else should run on the machine. `--small` does the same at a size that says nothing about
speed, on whatever device there is.
"""

import functools
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.decode.contenders import missing_library
from benchmarks.recording import RECORDS, Recorded, append_record, read_record
from benchmarks.stages import Deadline, OutOfTimeError, run_stage
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config.shipped import load_config_file
from flax_transformer.errors import UserError

CONFIGS = {"base": "configs/wmt_base.py", "big": "configs/wmt_big.py"}
TESTS = {"newstest2013": "newstest2013", "newstest2014": "newstest2014.en-fr"}
_TINY_MODEL = (
    "--model.num-encoder-layers 1 --model.num-decoder-layers 1 --model.d-model 64 "
    "--model.num-heads 2 --model.d-ff 64"
)
_TINY_BATCH = "--batch.rows 8 --batch.source-length 32 --batch.target-length 32"
_TINY_KERNELS = (
    "--rows 2 --length 64 --d-model 128 --num-heads 2 --vocabulary-size 500 --timed-rows 2 "
    "--timed-calls 1"
)
_TINY_SEARCH = f"{_TINY_MODEL} --sentences 16 --repeats 1 --decoding.batch-tokens 256"
_SEARCH = "--sentences 4000 --decoding.batch-tokens 65536"


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Measures what a GPU does with this project."""

    europarl: Path | None = None
    """Folder of Europarl, English and French, for the training; left out without it."""
    europarl_train: str = "train-1of4"
    """Name of its training files, without the language."""
    newstest: Path | None = None
    """Folder of newstest2013 and newstest2014.en-fr, which its model is scored on."""
    train_minutes: float = 10
    """How long to train, by the speed that was measured before."""
    minutes: float = 30
    """How long this command may take, at least 3; the same command goes on from there."""
    workdir: Path = Path("runs/gpu")
    """Folder for what the parts find."""
    small: bool = False
    """Tiny models and texts."""
    record: Path = RECORDS / "gpu.json"


def main(words: Sequence[str]) -> None:
    arguments = parse_arguments(Arguments, words)
    if (arguments.europarl is None) != (arguments.newstest is None):
        raise UserError("--europarl and --newstest go together: give both or neither")
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    deadline = Deadline.in_minutes(arguments.minutes)
    try:
        for name, stage_words, result in measurements(arguments):
            run_stage(name, stage_words, result, deadline)
        if arguments.europarl is not None:
            train(arguments, deadline)
    except OutOfTimeError as error:
        print(f"== {error}: out of time; the same command goes on from there")
        return
    figures = collect(arguments)
    report(figures)
    append_record(arguments, ("jax", "jaxlib", "flax", "torch", "ctranslate2"), figures)


def measurements(arguments: Arguments) -> list[tuple[str, list[str], Path]]:
    """Returns name, words and result of each command that measures."""
    found = []

    def add(name: str, module: str, *words: str) -> None:
        path = folder(arguments) / f"{name}.json"
        found.append((name, ["-m", f"benchmarks.{module}", *words, "--record", str(path)], path))

    small = arguments.small
    add("kernels", "gpu.kernels", *(_TINY_KERNELS.split() if small else ()))
    for name, config in CONFIGS.items():
        settings = ["--config", config, *(f"{_TINY_MODEL} {_TINY_BATCH}".split() if small else ())]
        settings += ["--model.remat", "nothing"]  # there is room for all that the gradient needs
        step = [*settings, "--compute-dtypes", "bfloat16", *peer("torch")]
        once = ("--steps", "1", "--repeats", "1") if small else ()
        add(f"step_{name}", "train_step", *step, *once)
        add(f"prediction_{name}", "gpu.prediction", *settings)
    search = ["--config", CONFIGS["base"], "--full-pass-batches", "0", *peer("ctranslate2")]
    add("decode", "decode", *search, *(_TINY_SEARCH if small else _SEARCH).split())
    return found


@functools.cache
def peer(package: str) -> tuple[str, ...]:
    """Returns the words that measure another library too, where it is installed and can run."""
    if importlib.util.find_spec(package) is None:
        return ()
    if package == "ctranslate2":
        missing = missing_library(importlib.import_module(package))
        if missing is not None:
            print(f"== without CTranslate2: {missing}")
            return ()
    return ("--peer", package)


def folder(arguments: Arguments) -> Path:
    return arguments.workdir.absolute()


def train(arguments: Arguments, deadline: Deadline) -> None:
    """Trains for as many steps as the measured speed makes of the minutes; scores the model."""
    assert arguments.europarl is not None and arguments.newstest is not None
    config, run = Path("configs/europarl_en_fr.py"), folder(arguments) / "europarl"
    steps = 4 if arguments.small else steps_in(arguments.train_minutes, arguments, config)
    flags = {
        "workdir": run,
        "data.directory": arguments.europarl.absolute(),
        "data.train": arguments.europarl_train,
        "training.steps": steps,
        "training.evaluate-every": steps,
        "training.checkpoint-every": max(1, steps // 10),
        "optimizer.warmup-steps": max(1, steps // 5),
        "optimizer.cooldown-steps": max(1, steps // 2),
    }
    words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
    if arguments.small:
        words += f"{_TINY_MODEL} {_TINY_BATCH} --tokenizer.vocabulary-size 600".split()
    result = run / "evaluation" / "test.json"
    run_stage("europarl", ["train.py", "--config", str(config), *words], result, deadline)
    for name, stem in TESTS.items():
        source, reference = (
            arguments.newstest.absolute() / f"{stem}.{language}" for language in ("en", "fr")
        )
        words = ["evaluate.py", "--workdir", str(run), "--name", name, "--metrics", "bleu", "chrf"]
        words += ["--source", str(source), "--reference", str(reference)]
        words += ["--batch-tokens", "256" if arguments.small else "32768"]
        run_stage(name, words, run / "evaluation" / f"{name}.json", deadline)


def steps_in(minutes: float, arguments: Arguments, config: Path) -> int:
    """Returns the steps of `config` that take so long, at the speed of the base model."""
    speed = latest(arguments, "step_base")["results"]["ours bfloat16"]["target_tokens_per_second"]
    batch = load_config_file(config).batch
    return max(100, int(60 * minutes * speed / (batch.rows * batch.target_length)))


def latest(arguments: Arguments, name: str) -> dict[str, Any]:
    return read_record(folder(arguments) / f"{name}.json")[-1]["figures"]


def collect(arguments: Arguments) -> dict[str, Any]:
    """Returns what all parts found."""
    found = {name: latest(arguments, name) for name, *_ in measurements(arguments)}
    if arguments.europarl is not None:
        folder_of_scores = folder(arguments) / "europarl" / "evaluation"
        read = functools.partial(Path.read_text, encoding="utf-8")
        found["europarl"] = {
            name: json.loads(read(folder_of_scores / f"{name}.json"))["bleu"]
            for name in ("test", *TESTS)
        }
    return found


def report(figures: dict[str, Any]) -> None:
    """Prints what was measured, beside what the dry run predicts."""
    for name in CONFIGS:
        predicted = figures[f"prediction_{name}"]
        bound = predicted.get("mfu_at_most")
        at_most = "unknown" if bound is None else f"at most {bound:.1%}"
        for contender, result in figures[f"step_{name}"]["results"].items():
            mfu = "unknown" if result["mfu"] is None else f"{result['mfu']:.1%}"
            print(
                f"{name:<6}{contender:<16}{result['target_tokens_per_second']:>12,.0f} target "
                f"tokens/s, MFU {mfu}; by the dry run {at_most}, "
                f"{predicted['bytes_moved'] / 1e9:.1f} GB moved"
            )
    for contender, result in figures["decode"]["results"].items():
        speed = result["target_tokens_per_second"]
        print(f"search {contender:<24}{speed:>12,.0f} target tokens/s")
    for name, bleu in figures.get("europarl", {}).items():
        print(f"Europarl, {name}: BLEU {bleu:.2f}")


if __name__ == "__main__":
    run_command(main)
