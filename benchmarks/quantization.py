"""What shorter numbers cost and give: BLEU and speed of one model here and in CTranslate2.

    python -m benchmarks.quantization --workdir runs/base --source test.en --reference test.fr

The model is exported, as `flax-transformer export` does it, and the same lines are translated from
text to text by everyone in turn: ours in float32 and in bfloat16 (`--peer ctranslate2` adds its
float32, bfloat16 and int8; pip install ctranslate2). Scores of hypotheses are divided by the same
power of their lengths. CTranslate2 stops as soon as one hypothesis is finished, ours when none can
be better; where it searches as long, both find the same in float32: how often, and how far the log
probabilities of ours lie apart, is recorded too. Where a processor does not multiply a type, a
library computes in another one, which the record names.
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax_transformer as ft
from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.timing import in_turns
from flax_transformer.api.model import rate
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.commands.text_files import read_lines
from flax_transformer.config.json import load_config
from flax_transformer.errors import require
from flax_transformer.exchange.exporting import Quantization, export_model
from flax_transformer.ops.compute_dtype import with_compute_dtype
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.workdir import CONFIG_FILE

_PEER_TYPES: tuple[Quantization | None, ...] = (None, "bfloat16", "int8")


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Translates a test set with shorter and shorter numbers."""

    workdir: Path
    """Folder of a trained model."""
    source: Path
    """Text to translate, a sentence a line."""
    reference: Path
    """Its right translations, line by line."""
    sentences: int = 2000
    """Most sentences that are translated."""
    beam_size: int = 4
    length_penalty: float = 1.0
    """Power of the length that scores are divided by."""
    peer: Literal["ctranslate2"] | None = None
    """Another library that translates the same with the same model."""
    repeats: int = 3
    """Repeats that count, after one that compiles and warms up; the median is the result."""
    record: Path = RECORDS / "quantization.json"


@dataclass(frozen=True)
class Contender:
    """One model with one type of numbers.

    computes_in: the type that it multiplies on this machine
    """

    translate: Callable[[], list[str]]
    computes_in: str


def main(words: Sequence[str]) -> None:
    arguments = parse_arguments(Arguments, words)
    lines = read_lines(arguments.source, "--source")[: arguments.sentences]
    references = read_lines(arguments.reference, "--reference")[: arguments.sentences]
    require(len(lines) == len(references), "--source and --reference have not as many lines")
    model = ft.Model(arguments.workdir, with_compute_dtype(settings(arguments), "float32"))
    with contenders_of(arguments, model, lines) as contenders:
        hypotheses = {name: one.translate() for name, one in contenders.items()}
        seconds = in_turns(
            {name: one.translate for name, one in contenders.items()}, arguments.repeats
        )
    alike = compare(arguments, model, lines) if arguments.peer else {}
    figures = {}
    for name, texts in hypotheses.items():
        score, tokens = rate(texts, references, "13a"), count_tokens(model, texts)
        figures[name] = {
            "bleu": score.bleu,
            "chrf": score.chrf,
            "target_tokens_per_second": tokens / seconds[name].median,
            "seconds_of_repeats": seconds[name].turns,
            "computes_in": contenders[name].computes_in,
            "same_as_float32": sum(map(str.__eq__, texts, hypotheses["float32"])) / len(texts),
        }
    report(figures, alike)
    described = {
        "sentences": len(lines),
        "beam_size": arguments.beam_size,
        "contenders": figures,
    }
    append_record(arguments, ("jax", "flax", "ctranslate2", "sacrebleu"), described | alike)


def count_tokens(model: ft.Model, texts: Sequence[str]) -> int:
    """Returns the target tokens of `texts`, end symbols included."""
    return sum(map(len, model.tokenizer.target.encode(texts)))


def report(figures: dict[str, dict[str, Any]], alike: dict[str, float]) -> None:
    """Prints a line for each contender."""
    for name, found in figures.items():
        print(
            f"{name:<24}BLEU {found['bleu']:5.2f}"
            f"{found['target_tokens_per_second']:>8,.0f} target tokens/s"
            f"{found['same_as_float32']:>8.1%} of the lines as in float32"
            f"  (computes in {found['computes_in']})"
        )
    for name, value in alike.items():
        print(f"{name.replace('_', ' ')}: {value:.2g}")


@contextmanager
def contenders_of(
    arguments: Arguments, model: ft.Model, lines: Sequence[str]
) -> Iterator[dict[str, Contender]]:
    """Yields what translates `lines`, by name; `model` is that in float32."""
    with tempfile.TemporaryDirectory() as place:
        export_model(model, Path(place) / "ours", "safetensors", "bfloat16")
        shorter = ft.Model(Path(place) / "ours", settings(arguments))
        found = {
            name: Contender(partial(each.translate, lines), each.config.model.compute_dtype)
            for name, each in (("float32", model), ("bfloat16", shorter))
        }
        if arguments.peer:
            for quantization in _PEER_TYPES:
                folder = Path(place) / (quantization or "float32")
                export_model(model, folder, "ctranslate2", quantization)
                found[f"ctranslate2 {folder.name}"] = theirs(arguments, model, folder, lines)
        yield found


def settings(arguments: Arguments) -> ft.Config:
    """Returns those of the model, with a search that CTranslate2 has too."""
    config = load_config(arguments.workdir / CONFIG_FILE)
    decoding = dataclasses.replace(
        config.decoding,
        beam_size=arguments.beam_size,
        length_normalization="power",
        length_penalty=arguments.length_penalty,
        extra_length=50,
        split_sentences=False,
    )
    return dataclasses.replace(config, decoding=decoding)


def theirs(arguments: Arguments, model: ft.Model, folder: Path, lines: Sequence[str]) -> Contender:
    """Returns CTranslate2 with the model in `folder`, which has the type of its files."""
    translator = _translator(folder)
    source, target = model.tokenizer, model.tokenizer.target
    numbers = {piece: index for index, piece in enumerate(_pieces(target))}

    def translate() -> list[str]:
        found = translator.translate_batch(
            [source.pieces(ids) for ids in source.encode(lines)],
            beam_size=arguments.beam_size,
            length_penalty=arguments.length_penalty,
            max_batch_size=model.config.decoding.batch_tokens,
            batch_type="tokens",
        )
        return target.decode([[numbers[piece] for piece in each.hypotheses[0]] for each in found])

    return Contender(translate, translator.compute_type)


def compare(arguments: Arguments, model: ft.Model, lines: Sequence[str]) -> dict[str, float]:
    """Returns how alike ours and CTranslate2 are in float32 for the pieces that ours searches with.

    log_probabilities_at_most_apart  those of ours' translations, at most
    same_when_searching_as_long      share of the lines with the same tokens, where CTranslate2's
                                     `patience` keeps it from stopping before ours does
    """
    found = [best for (best,) in model.search(lines, n_best=1) if len(best.pairs) == 1]
    sources = [model.tokenizer.pieces(best.pairs[0].source) for best in found]
    targets = [model.tokenizer.target.pieces(best.pairs[0].target) for best in found]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "float32"
        export_model(model, folder, "ctranslate2")
        translator = _translator(folder)
        scores = translator.score_batch(sources, targets)
        others = translator.translate_batch(
            sources,
            beam_size=arguments.beam_size,
            length_penalty=arguments.length_penalty,
            patience=arguments.beam_size,
            max_batch_size=model.config.decoding.batch_tokens,
            batch_type="tokens",
        )
    same = sum(own == other.hypotheses[0] for own, other in zip(targets, others, strict=True))
    return {
        "log_probabilities_at_most_apart": max(
            abs(sum(own.log_probabilities) - sum(other.log_probs))
            for own, other in zip(model.token_details(found), scores, strict=True)
        ),
        "same_when_searching_as_long": same / len(found),
    }


def _translator(folder: Path) -> Any:
    # The library is only there for the comparison.
    import ctranslate2

    threads = len(os.sched_getaffinity(0))
    return ctranslate2.Translator(str(folder), device="cpu", intra_threads=threads)


def _pieces(tokenizer: Tokenizer) -> list[str]:
    return tokenizer.pieces(range(tokenizer.vocabulary_size))


if __name__ == "__main__":
    run_command(main)
