"""Settings of the corpora, one class for each kind (see run.py)."""

import re
from dataclasses import dataclass

from flax_transformer.config.setting_types import require_types, shown
from flax_transformer.errors import require, require_positive

# Bytes; file systems take 255 for a name with two languages and an ending.
_LONGEST_NAME, _LONGEST_LANGUAGE = 180, 30


def require_name(setting: str, name: str, longest: int = _LONGEST_NAME) -> None:
    """Raises `UserError` unless `name` is a file name, or a path, that stays below its folder.

    setting: how the message begins
    longest: most bytes of a name in the path
    """
    parts = name.split("/")
    require(
        not {"", ".", ".."}.intersection(parts),
        f"{setting} is {shown(name)}, but must be a file name, or a path below the folder: without "
        "'..', and not absolute",
    )
    require(
        name.isprintable() and max(len(part.encode()) for part in parts) <= longest,
        f"{setting} is {shown(name)}, but must be printable, and at most {longest} bytes long",
    )


def _require_language(setting: str, language: str) -> None:
    require_name(setting, language, _LONGEST_LANGUAGE)
    require(
        "/" not in language, f"{setting} is '{language}', but is the ending of files: without '/'"
    )


@dataclass(frozen=True, kw_only=True)
class _Augmented:
    """Settings of every kind of corpus: what training changes in the pairs of the text."""

    placeholders: float = 0.06
    """Share of training pairs that get placeholders on both sides, so that the model learns to
    carry them over. They stand for words with characters that the text lacks. 0 changes no pair."""
    concatenate: float = 0.0
    """Share of training pairs that are followed by the next pair's text, so that the model sees
    several sentences in one line."""

    def __post_init__(self):
        require_types(self, "data")
        for name in ("placeholders", "concatenate"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"data.{name} is {value}, but is a share: use 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Builtin(_Augmented):
    """English to French sentences made by a small grammar inside this package; no network."""

    num_pairs: int = 40_000
    """Training pairs to generate."""

    def __post_init__(self):
        super().__post_init__()
        require_positive(self, "data", "num_pairs")


@dataclass(frozen=True, kw_only=True)
class TrainingFiles:
    """One source of training pairs, written `NAME`, `NAME,weight=2` or `NAME,weight=2,tag=<bt>`."""

    name: str
    """Name of the files, without the language."""
    weight: int = 1
    """How often an epoch holds each of the pairs."""
    tag: str | None = None
    """A symbol put before each source sentence, such as <bt> before those that a model has made
    (Caswell et al. 2019). It has a piece of its own in the vocabulary, which no text is encoded to.
    """

    def __post_init__(self):
        require_types(self, "data.train")
        require_name("a name in data.train", self.name)
        place = f"data.train names '{self.name}' with"
        require(
            self.weight >= 1,
            f"{place} weight {self.weight}, but an epoch holds a pair once or more: use 1, and "
            "larger weights for other files",
        )
        require(
            self.tag is None or re.fullmatch(r"<[^\s\u2581<>,]+>", self.tag) is not None,
            f"{place} the tag '{self.tag}': write it in angle brackets without spaces or commas, "
            "such as <bt>",
        )
        require(
            re.fullmatch(r"<(s|/s|pad|unk|0x[0-9A-F]{2})>", self.tag or "") is None,
            f"{place} the tag {self.tag}, which is a special symbol of every vocabulary: use "
            "another, such as <bt>",
        )

    @classmethod
    def parse(cls, text: str) -> "TrainingFiles":
        """Reads `text`, which is written as in `TextFiles.train`; raises `UserError`."""
        name, *options = text.split(",")
        values = dict(option.partition("=")[::2] for option in options)
        wrong = f"data.train has {shown(text)}, but is written NAME, NAME,weight=2 or NAME,tag=<bt>"
        require(bool(name) and values.keys() <= {"weight", "tag"}, wrong)
        require(len(values) == len(options), f"{wrong}: each option once")
        weight = values.get("weight", "1")
        require(
            re.fullmatch(r"-?[0-9]{1,9}", weight) is not None,
            f"{wrong}: a weight is a whole number, and only the ratio of weights counts (for half "
            "of one, give the others 2)",
        )
        return cls(name=name, weight=int(weight), tag=values.get("tag"))


@dataclass(frozen=True, kw_only=True)
class TextFiles(_Augmented):
    """Aligned text files `<split>.<language>`, or one TSV file per split.

    `<split>.<language>-<language>.tsv` names the languages of its columns, so that either can be
    the source; in `<split>.tsv` the source comes first. Each may have .gz or .xz after its name.
    One sentence per line, UTF-8, or UTF-16 with a byte order mark. The bytes decide, not the name:
    a file under any name may be compressed by gzip or xz.
    """

    directory: str
    """Folder that holds the files."""
    source_language: str
    """Ending of the files to translate from, such as en."""
    target_language: str
    """Ending of the files to translate to, such as de."""
    train: tuple[str, ...] = ("train",)
    """Names of the training files, without the language; several are read one after the other.
    Each may lie in a folder below the directory: FOLDER/NAME.
    Each may be followed by how often an epoch holds its pairs, and by a symbol to put before its
    source sentences: NAME,weight=2,tag=<bt> (in quotes for a shell)."""
    validation: str = "valid"
    """Name of the validation files, without the language."""
    test: tuple[str, ...] = ("test",)
    """Names of the test files, without the language; each is scored on its own. The scores of
    FOLDER/NAME go to evaluation/FOLDER/NAME.json."""

    def __post_init__(self):
        super().__post_init__()
        _require_language("data.source_language", self.source_language)
        _require_language("data.target_language", self.target_language)
        require(
            self.source_language != self.target_language,
            f"data.source_language and data.target_language are both '{self.source_language}'",
        )
        _ = self.training_files  # refuses what is not written as it should be
        require_name("data.validation", self.validation)
        for name in self.test:
            require_name("a name in data.test", name)

    @property
    def training_files(self) -> tuple[TrainingFiles, ...]:
        """The elements of `train`, each with name, weight and tag apart."""
        return tuple(map(TrainingFiles.parse, self.train))


@dataclass(frozen=True, kw_only=True)
class Tfds(_Augmented):
    """A translation dataset of TensorFlow Datasets, read without TensorFlow.

    Entities that its sources left in the text, such as &amp; and &#39;, are read as the
    characters that they stand for.
    """

    name: str = "wmt14_translate/de-en"
    """Dataset and configuration, as in the TensorFlow Datasets catalogue."""
    source_language: str = "en"
    """Feature to translate from."""
    target_language: str = "de"
    """Feature to translate to."""
    directory: str | None = None
    """Folder of prepared datasets; by default the library's own, ~/tensorflow_datasets."""

    def __post_init__(self):
        super().__post_init__()
