"""What back-translation gains (Sennrich et al. 2016): BLEU with and without it, on one test set.

    python -m benchmarks.back_translation --directory DIR --source-language en --target-language fr

Some training pairs stay true, and of others only the target side is kept, as monolingual text. Four
stages, each a command of docs/back_translation.md, in folders of the work directory: baseline (true
pairs), reverse (true pairs, target to source), translation of the monolingual text, mixed (true and
translated pairs, the latter tagged). Baseline and mixed take the same number of steps with the same
number of rows, so the baseline goes over its few pairs more often. The same command again goes on
where it stopped. The defaults are for 2 CPU cores, 10 to 15 minutes per training.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.stages import run_stage
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import TextFiles
from flax_transformer.config.shipped import load_config_file
from flax_transformer.data.corpus import Corpus, open_corpus
from flax_transformer.errors import UserError
from flax_transformer.training.metrics import read_metrics

TEST = "test"


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Trains with and without back-translation, and records the BLEU of both."""

    directory: str
    """Folder of aligned text files."""
    source_language: str
    target_language: str
    train: tuple[str, ...] = ("train",)
    """Names of the training files, without the language."""
    validation: str = "valid"
    test: str = TEST
    """The test files that are scored."""
    workdir: Path = Path("runs/back_translation")
    """Folder for the text and the three runs."""
    config: Path = Path("configs/tatoeba_en_fr.py")
    """Settings of all trainings, but for the corpus, the number of steps and the vocabulary."""
    pairs: int = 10_000
    """True pairs."""
    lines: int = 100_000
    """Monolingual lines, at most."""
    weight: int = 5
    """How often an epoch of the mixed training holds each true pair; translated ones, once."""
    steps: int = 800
    """Optimizer steps of each training; the first 3/8 are warm-up, the last half cooldown."""
    vocabulary_size: int = 4000
    flags: str = ""
    """More flags of train.py for all trainings: --flags="--model.dropout 0.2"."""
    record: Path = RECORDS / "back_translation.json"


def write_text(arguments: Arguments, folder: Path) -> None:
    """Writes true.* and mono.<target>, drawn from the training pairs, and valid.* and test.*.

    Monolingual lines are distinct, and none is a sentence to be scored on.
    """
    corpus = open_corpus(
        TextFiles(
            directory=arguments.directory,
            source_language=arguments.source_language,
            target_language=arguments.target_language,
            train=arguments.train,
            validation=arguments.validation,
            test=(arguments.test,),
        )
    )
    train = corpus.split(Corpus.train)
    order = np.random.default_rng(0).permutation(len(train)).tolist()
    scored = {"valid": corpus.split(Corpus.validation), TEST: corpus.split(arguments.test)}
    taken = {target for pairs in scored.values() for _, target in pairs}
    mono = dict.fromkeys(train[i][1] for i in order[arguments.pairs :])
    lines = [line for line in mono if line.strip() and line not in taken]
    if not lines:
        raise UserError(
            f"--pairs {arguments.pairs} leaves no monolingual line of {len(train)} pairs: use fewer"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for side, language in enumerate((arguments.source_language, arguments.target_language)):
        for name, pairs in scored.items():
            write_lines(folder / f"{name}.{language}", [pair[side] for pair in pairs])
        true = [train[i][side] for i in order[: arguments.pairs]]
        write_lines(folder / f"true.{language}", true)
    for name in ("mono", "synthetic"):
        path = folder / f"{name}.{arguments.target_language}"
        write_lines(path, lines[: arguments.lines])


def write_lines(path: Path, lines: Sequence[str]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    partial.replace(path)


def training_command(arguments: Arguments, name: str, train: Sequence[str]) -> list[str]:
    """Returns the words of a training; `reverse` swaps the languages and the rows' lengths."""
    batch = load_config_file(arguments.config).batch
    languages = [arguments.source_language, arguments.target_language]
    lengths = [batch.source_length, batch.target_length]
    if name == "reverse":
        languages, lengths = languages[::-1], lengths[::-1]
    flags = {
        "config": arguments.config,
        "workdir": arguments.workdir / name,
        "data.directory": arguments.workdir / "data",
        "data.source-language": languages[0],
        "data.target-language": languages[1],
        "data.validation": "valid",
        "data.test": TEST,
        "batch.source-length": lengths[0],
        "batch.target-length": lengths[1],
        "decoding.max-source-length": lengths[0],
        "tokenizer.vocabulary-size": arguments.vocabulary_size,
        "training.steps": arguments.steps,
        "training.evaluate-every": max(1, arguments.steps // 4),
        "optimizer.warmup-steps": max(1, 3 * arguments.steps // 8),
        "optimizer.cooldown-steps": arguments.steps // 2,
    }
    words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
    return ["train.py", *words, "--data.train", *train, *arguments.flags.split()]


def check_same_arguments(arguments: Arguments) -> None:
    """Raises `UserError` where the work directory is of a measurement with other arguments."""
    path = arguments.workdir / "arguments.json"
    told = {k: v for k, v in dataclasses.asdict(arguments).items() if k not in ("note", "record")}
    text = json.dumps(told, indent=2, default=str)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserError(f"{path} has other arguments than these: name another --workdir")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def scores(workdir: Path) -> dict[str, Any]:
    """Reads those of the last checkpoints on the test set, and the best on the way, to see
    overfitting."""
    record = json.loads((workdir / "evaluation" / f"{TEST}.json").read_text(encoding="utf-8"))
    validation = [line["bleu"] for line in read_metrics(workdir) if line["kind"] == "validation"]
    return {
        "bleu": record["bleu"],
        "bleu_signature": record["bleu_signature"],
        "chrf": record["chrf"],
        "best_validation_bleu": max(validation),
    }


def main(words: Sequence[str]) -> None:
    arguments = parse_arguments(Arguments, words)
    folder = arguments.workdir.absolute()
    arguments = dataclasses.replace(arguments, workdir=folder, config=arguments.config.absolute())
    check_same_arguments(arguments)
    data = folder / "data"
    last = data / f"synthetic.{arguments.target_language}"
    if not last.exists():
        write_text(arguments, data)
    made = data / f"synthetic.{arguments.source_language}"
    files = ["--input", str(data / f"mono.{arguments.target_language}"), "--output", str(made)]
    translation = ["translate.py", "--workdir", str(folder / "reverse"), "--beam-size", "1", *files]
    mixture = [f"true,weight={arguments.weight}", "synthetic,tag=<bt>"]
    for name, train in (("baseline", ["true"]), ("reverse", ["true"]), ("mixed", mixture)):
        if name == "mixed":
            run_stage("translation", translation, made)
        result = folder / name / "evaluation" / f"{TEST}.json"
        run_stage(name, training_command(arguments, name, train), result)
    results = {name: scores(folder / name) for name in ("baseline", "reverse", "mixed")}
    gain = results["mixed"]["bleu"] - results["baseline"]["bleu"]
    figures = {
        "monolingual_lines": made.read_bytes().count(b"\n"),
        "steps_of_each_training": arguments.steps,
        "results": results,
        "bleu_gain": round(gain, 2),
    }
    for name, result in results.items():
        print(f"{name}: BLEU {result['bleu']:.2f}")
    print(f"back-translation gains {gain:.2f} BLEU")
    append_record(arguments, ("jax", "flax", "sentencepiece"), figures)


if __name__ == "__main__":
    run_command(main)
