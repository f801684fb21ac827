"""What a trained model makes of text as people have it: BLEU with odd white space, with several
sentences in a line, and words in characters that the model has no pieces for.

    python -m benchmarks.odd_text --workdir runs/quickstart
"""

import dataclasses
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.recording import RECORDS, Recorded, append_record
from flax_transformer.config.json import load_config
from flax_transformer.data.corpus import open_corpus
from flax_transformer.evaluation.scores import bleu_only
from flax_transformer.runtime.memory import keep_freed_memory
from flax_transformer.translation.trained_model import TrainedModel

CHARACTERS = {
    "no-break space": "\u00a0",
    "thin space": "\u2009",
    "tab": "\t",
    "two spaces": "  ",
    "byte order mark": "\ufeff",
    "zero-width space": "\u200b",
}
WORDS = (
    "😀", "🎉", "❤️", "🚀🚀", "👩‍👩‍👧", "Ольга", "Привет", "Ελλάδα", "Αθήνα", "東京", "北京", "서울",
    "ありがとう", "שלום", "مرحبا", "नमस्ते", "ไทย",
)  # fmt: skip
Translate = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Translates variants of the first sentences of a test split."""

    workdir: Path
    """Folder of a run."""
    directory: str | None = None
    """Folder of the text files where it is not that of the run."""
    split: str = "test"
    """The test split."""
    sentences: int = 300
    """Sentences for BLEU."""
    words: int = 50
    """Sentences that get an unreadable word, at each place."""
    split_sentences: bool = True
    """Whether lines of several sentences are translated sentence by sentence."""
    concatenated: int = 240
    """Sentences that are put into lines of two, three and four."""
    record: Path = RECORDS / "odd_text.json"


def put_in(text: str, inserted: str, draw: random.Random) -> str:
    """Puts `inserted` in the place of a space, or beside one where it is not white space."""
    words = text.split(" ")
    place = draw.randrange(1, len(words)) if len(words) > 1 else 1
    gap = inserted if inserted.isspace() else f" {inserted}"
    if inserted == "\ufeff":
        return inserted + text
    return " ".join(words[:place]) + gap + " ".join(words[place:])


def placed(text: str, word: str, place: str) -> str:
    words = text.split(" ")
    where = {"start": 0, "middle": len(words) // 2, "end": len(words)}[place]
    return " ".join([*words[:where], word, *words[where:]])


def first_name(source: str, translation: str) -> str | None:
    """Finds a word with a capital letter inside of both."""
    names = re.findall(r"(?<=\w )[A-Z]\w+", source)
    return next((name for name in names if re.search(rf"\b{name}\b", translation)), None)


def letters(words: Sequence[str]) -> list[str]:
    return [word for word in words if word[0].isalpha()]


def carried(translate: Translate, lines: Sequence[str], place: str) -> dict[str, Any]:
    """Counts the lines whose word comes out, and those in which the rest is as without it."""
    plain = translate(lines)
    changed, words, expected = [], [], []
    for source, translation in zip(lines, plain, strict=True):
        if place == "name":
            word = letters(WORDS)[len(words) % len(letters(WORDS))]
            if (name := first_name(source, translation)) is None:
                continue
            changed.append(re.sub(rf"\b{name}\b", word, source, count=1))
            expected.append(re.sub(rf"\b{name}\b", word, translation, count=1))
        else:
            word = WORDS[len(words) % len(WORDS)]
            changed.append(placed(source, word, place))
            expected.append(translation)
        words.append(word)
    if not changed:
        return {"lines": 0}
    whole = unharmed = 0
    for word, found, wanted in zip(words, translate(changed), expected, strict=True):
        whole += word in found
        rest = found if place == "name" else found.replace(word, " ", 1)
        unharmed += "".join(rest.split()) == "".join(wanted.split())
    return {
        "lines": len(changed),
        "carried over": round(whole / len(changed), 3),
        "rest as without": round(unharmed / len(changed), 3),
    }


def bleu(
    translate: Translate, sources: list[str], references: list[str], concatenated: int
) -> dict[str, float]:
    """Scores the sentences as they are, with odd characters, and several in a line."""
    found = {"plain": bleu_only(translate(sources), references)}
    draw = random.Random(0)
    for name, character in CHARACTERS.items():
        odd = [put_in(source, character, draw) for source in sources]
        found[name] = bleu_only(translate(odd), references)
    for count in (2, 3, 4):
        most = min(concatenated, len(sources)) // count * count
        starts = range(0, most, count)
        lines, expected = (
            [" ".join(side[start : start + count]) for start in starts]
            for side in (sources, references)
        )
        found[f"{count} sentences a line"] = bleu_only(translate(lines), expected)
    return found


def main(arguments: Arguments) -> None:
    config = load_config(arguments.workdir / "config.json")
    data = config.data
    if arguments.directory is not None:
        data = dataclasses.replace(data, directory=arguments.directory)
    decoding = dataclasses.replace(config.decoding, split_sentences=arguments.split_sentences)
    model = TrainedModel(arguments.workdir, dataclasses.replace(config, decoding=decoding))

    def translate(lines: Sequence[str]) -> list[str]:
        return model.translate(lines, progress="lines")

    pairs = open_corpus(data).split(arguments.split)[: arguments.sentences]
    sources, references = (list(side) for side in zip(*pairs, strict=True))
    figures: dict[str, Any] = {
        "model": f"{arguments.workdir.name}, {arguments.split}, checkpoints {model.steps}",
        "bleu": bleu(translate, sources, references, arguments.concatenated),
        "words": {
            place: carried(translate, sources[: arguments.words], place)
            for place in ("start", "middle", "end", "name")
        },
    }
    for name, value in figures["bleu"].items():
        print(f"BLEU {value:6.2f}  {name}")
    for place, found in figures["words"].items():
        print(f"an unreadable word, {place}: {found}")
    append_record(arguments, ("jax", "sentencepiece"), figures)


if __name__ == "__main__":
    keep_freed_memory()
    main(tyro.cli(Arguments))
