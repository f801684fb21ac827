"""Writes the text that the shipped model en-fr-small learns: everyday sentences, and short debates.

    python -m benchmarks.en_fr_small_data --tatoeba DIR --europarl DIR

Tatoeba teaches everyday language; the short pairs of Europarl teach words and longer sentences.
Takes half a minute. docs/data.md says where both corpora come from.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import TextFiles
from flax_transformer.data.corpus import Corpus, open_corpus
from flax_transformer.data.pairs import Pair
from flax_transformer.data.text_files import TextPairs, find_files
from flax_transformer.files.whole_file import write_whole

LANGUAGES = ("en", "fr")
SOURCE_WORDS = range(3, 23)
NEWS_WORDS, NEWS_PAIRS = range(4, 13), 200
LARGEST_RATIO = 1.8
"""Of the words of the longer side to those of the shorter; pairs beyond it seldom correspond."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Writes the training, validation and test text of en-fr-small."""

    tatoeba: str
    """Folder with train, valid and test of Tatoeba, English and French."""
    europarl: str
    """Folder with training text and valid of Europarl v7, English and French."""
    europarl_train: str = "train-1of4"
    """Name of its training files, without the language."""
    newstest: str | None = None
    """Folder with newstest2013, English and French: also writes 200 short sentences of the news, to
    score the model on."""
    output: Path = Path("data/en_fr_small")
    """Folder to write to."""
    europarl_pairs: int = 180_000
    """Short pairs to take from Europarl."""
    validation_pairs: tuple[int, int] = (1000, 300)
    """Pairs of each corpus' own validation text."""


def main(words: Sequence[str]) -> None:
    arguments = parse_arguments(Arguments, words)
    tatoeba = open_folder(arguments.tatoeba, "train")
    europarl = open_folder(arguments.europarl, arguments.europarl_train)
    everyday, debates = arguments.validation_pairs
    texts = {
        "tatoeba": tatoeba.split(Corpus.train),
        "europarl": short_pairs(europarl.split(Corpus.train), arguments.europarl_pairs),
        "valid": [
            *islice(tatoeba.split(Corpus.validation), everyday),
            *short_pairs(europarl.split(Corpus.validation), debates),
        ],
        "test": tatoeba.split("test"),
    }
    if arguments.newstest is not None:
        texts["news"] = islice(filter(is_everyday, read_news(arguments.newstest)), NEWS_PAIRS)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, pairs in texts.items():
        for language, lines in zip(LANGUAGES, zip(*pairs, strict=True), strict=True):
            write_whole(
                arguments.output / f"{name}.{language}", "".join(f"{line}\n" for line in lines)
            )
            print(f"{name}.{language}: {len(lines):,} lines", flush=True)


def open_folder(directory: str, training: str) -> Corpus:
    source, target = LANGUAGES
    return open_corpus(
        TextFiles(
            directory=directory, source_language=source, target_language=target, train=(training,)
        )
    )


def read_news(directory: str) -> Iterator[Pair]:
    files = find_files(Path(directory), LANGUAGES, "--newstest", "newstest2013")
    return iter(TextPairs([files]))


def is_everyday(pair: Pair) -> bool:
    """Tells whether a sentence of the news is as short as everyday ones."""
    return len(pair[0].split()) in NEWS_WORDS


def short_pairs(pairs: Iterable[Pair], count: int) -> Iterator[Pair]:
    """Yields the first `count` pairs that are short."""
    return islice(filter(is_short, pairs), count)


def is_short(pair: Pair) -> bool:
    """Tells whether a pair is as long as an everyday sentence, and its sides alike in length."""
    source, target = (len(side.split()) for side in pair)
    return source in SOURCE_WORDS and max(source, target) <= LARGEST_RATIO * min(source, target)


if __name__ == "__main__":
    run_command(main)
