"""A corpus: named splits of sentence pairs, from the built-in grammar, text files or TFDS."""

from collections.abc import Callable, Mapping
from functools import cache, partial

from flax_transformer.config import Builtin, TextFiles, Tfds
from flax_transformer.data import text_files, tfds_corpus
from flax_transformer.data.pairs import Pair, PairList, Pairs
from flax_transformer.errors import UserError

Loaders = Mapping[str, Callable[[], Pairs]]
"""How to read each split: `train` and `validation`, then those that are only tested on."""


class Corpus:
    """Splits by name, each read when first asked for: translating does not read the training text.

    Pairs of which one side is empty stay in, so that the lines of a test file keep their numbers.
    """

    train = "train"
    validation = "validation"

    def __init__(self, title: str, loaders: Loaders):
        self._title = title
        self._loaders = loaders
        self._splits: dict[str, Pairs] = {}
        self._fingerprints: dict[str, str] = {}

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Names of the splits to score on."""
        return tuple(name for name in self._loaders if name not in (self.train, self.validation))

    def split(self, name: str) -> Pairs:
        """Returns the (source, target) pairs of a split.

        Raises `UserError` where the text is missing, broken or empty.
        """
        if name not in self._loaders:
            raise UserError(f"there is no split '{name}', only {', '.join(self._loaders)}")
        if name not in self._splits:
            pairs = self._loaders[name]()
            # Stops at the first pair of an ordinary corpus.
            if not any(source.strip() and target.strip() for source, target in pairs):
                raise UserError(
                    f"{self._title}: the {name} split has no pair with text on both sides"
                )
            self._splits[name] = pairs
        return self._splits[name]

    def fingerprint(self, name: str) -> str:
        """Returns a hash of the content of a split, the direction of translation included."""
        if name not in self._fingerprints:
            self._fingerprints[name] = self.split(name).fingerprint()
        return self._fingerprints[name]

    def describe(self) -> str:
        """Returns one line for a person: where the text comes from and how much there is.

        Reads all of it.
        """
        names = {self.train: "training pairs"}
        counts = [f"{len(self.split(name)):,} {names.get(name, name)}" for name in self._loaders]
        return f"{self._title}: {', '.join(counts)}"


def open_corpus(config: Builtin | TextFiles | Tfds) -> Corpus:
    """Returns the corpus that the settings name.

    Raises `UserError` where a folder, a file or a dataset is missing. The text itself is checked
    when a split is first read.
    """
    if isinstance(config, TextFiles):
        return Corpus(*text_files.title_and_loaders(config))
    if isinstance(config, Tfds):
        return Corpus(*tfds_corpus.title_and_loaders(config))
    return Corpus("Built-in grammar, en -> fr", _builtin_loaders(config.num_pairs))


def _builtin_loaders(num_pairs: int) -> Loaders:
    @cache
    def splits() -> dict[str, list[Pair]]:
        # Imported here, since no other corpus needs the grammar.
        from flax_transformer.data.builtin import generate

        return generate(num_pairs)

    def load(name: str) -> Pairs:
        return PairList(splits()[name])

    names = (Corpus.train, Corpus.validation, "test", "test_compositional")
    return {name: partial(load, name) for name in names}
