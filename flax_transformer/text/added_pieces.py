"""Gives a trained vocabulary further pieces and tags, and leaves every id that it has as it is.

The pieces are learned from other text by going on with byte-pair encoding where the vocabulary's
training stopped ("continued BPE", Purason et al. 2025): the text is split as before, and the pair
of neighbours that occurs most often becomes a piece, again and again. The pieces of a vocabulary
learned afresh would not do, as merging the pieces of this one does not lead to all of them.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import NamedTuple

from flax_transformer.errors import require
from flax_transformer.text.byte_pairs import merge
from flax_transformer.text.imported_tokenizer import ImportedTokenizer
from flax_transformer.text.placeholders import PLACEHOLDERS
from flax_transformer.text.tokenizer import SPACE_SIGN, Tokenizer

_LONGEST = 16
"""Most characters of a piece, as in SentencePiece's own training."""

_FEWEST = 2
"""Tokens that a piece must save, so that what occurs once gets none."""

_AT_A_TIME = 10_000
"""Sentences whose words are counted at a time."""

_ONE_SCRIPT = {"CJK": "CJK", "HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK"}


class LearnedPieces(NamedTuple):
    """What `learn_pieces` has found."""

    pieces: list[str]
    """In the order in which they are to be merged."""
    tokens_before: int
    """Tokens of the text without the pieces."""
    tokens_after: int
    """Tokens of the text with them."""


def add_pieces(vocabulary: Tokenizer, pieces: Sequence[str], tags: Sequence[str]) -> bytes:
    """Returns the file of `vocabulary` with `pieces` and a symbol for each of `tags` at its end.

    Text is merged as before, and `pieces` are made of what is left, the first of them first: a word
    whose split has no two neighbours that make one of `pieces` keeps its split.

    Raises `UserError` for an imported vocabulary, which cannot have any.
    """
    if not pieces and not tags:
        return vocabulary.model
    require(
        not isinstance(vocabulary, ImportedTokenizer),
        "an imported vocabulary takes no more pieces: leave out tokenizer.added_pieces, and the "
        "tags in data.train",
    )
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

    proto = ModelProto.FromString(vocabulary.model)
    lowest = min(piece.score for piece in proto.pieces)  # SentencePiece merges the highest first
    for number, piece in enumerate(pieces, 1):
        proto.pieces.add(piece=piece, score=lowest - number)
    for tag in tags:
        proto.pieces.add(piece=tag, score=0.0, type=ModelProto.SentencePiece.Type.CONTROL)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    model = proto.SerializeToString(deterministic=True)
    Tokenizer(model)  # raises ValueError unless it is one
    return model


def learn_pieces(
    vocabulary: Tokenizer, sentences: Sequence[str], count: int, tags: Sequence[str] = ()
) -> LearnedPieces:
    """Returns up to `count` pieces that `vocabulary` lacks, each the one that saves most tokens.

    tags: names that no piece may have

    A character without a piece gets one as soon as its bytes are the most to be saved; a single
    byte counts as saved too, as words with it can only then be merged. Pieces keep to one script
    and to the length that SentencePiece allows; like its own, they reach over no space. The same
    arguments give the same pieces. There are fewer than `count` where none is left that saves as
    many as two tokens.
    """
    text = _SplitText(vocabulary, _count_words(vocabulary, sentences))
    before = text.tokens
    taken = {*vocabulary.pieces(range(vocabulary.vocabulary_size)), *tags}
    queue = [(-saved, piece) for piece, saved in text.savings.items()]
    heapify(queue)
    pieces: list[str] = []
    while queue and len(pieces) < count:
        saved, piece = heappop(queue)
        if piece in taken or text.savings[piece] != -saved:
            continue  # its saving has changed since, and waits in the queue as well
        if -saved < _FEWEST:
            break
        taken.add(piece)
        pieces.append(piece)
        for other in text.add(piece):
            heappush(queue, (-text.savings[other], other))
    return LearnedPieces(pieces, before, text.tokens)


class _SplitText:
    """Text as runs of symbols that may be merged, and what each further piece would save.

    savings  by piece, the tokens that it would save if it were the next
    """

    def __init__(self, vocabulary: Tokenizer, words: Mapping[str, int]):
        self._ids = dict(vocabulary.text_pieces)
        self._next_id = vocabulary.vocabulary_size
        counts: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            for run in _runs(merge(SPACE_SIGN + word, self._ids, 0.0, _keep_all)):
                counts[run] += count
        self._splits: list[Sequence[str]] = list(counts)
        self._counts = list(counts.values())
        self.savings: Counter[str] = Counter()
        self._places: dict[str, set[int]] = defaultdict(set)
        for place in range(len(self._splits)):
            self._note(place, 1)

    @property
    def tokens(self) -> int:
        """Tokens of the text, split as it now is."""
        return sum(
            count * (1 if symbol in self._ids else len(symbol.encode()))
            for run, count in zip(self._splits, self._counts, strict=True)
            for symbol in run
        )

    def add(self, piece: str) -> set[str]:
        """Merges `piece` wherever it can be, after all others; returns whose savings it changes."""
        places = self._places.pop(piece)
        changed: set[str] = set()
        for place in places:
            changed |= self._note(place, -1)
        self._ids[piece] = self._next_id  # above all others, and so merged after them
        self._next_id += 1
        for place in places:
            self._splits[place] = merge(self._splits[place], self._ids, 0.0, _keep_all)
            changed |= self._note(place, 1)
        return changed

    def _note(self, place: int, sign: int) -> set[str]:
        """Counts the run at `place` in, or out for a `sign` of -1; returns what it may become."""
        found = set()
        for piece, tokens in self._candidates(self._splits[place]):
            self.savings[piece] += sign * tokens * self._counts[place]
            found.add(piece)
            if sign > 0:
                self._places[piece].add(place)
        return found

    def _candidates(self, run: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Yields each piece that could be made of the run, and the tokens that this would save."""
        for symbol in run:
            if symbol not in self._ids:
                yield symbol, max(len(symbol.encode()) - 1, 1)
        for left, right in pairwise(run):
            if left in self._ids and right in self._ids and len(left + right) <= _LONGEST:
                yield left + right, 1


def _count_words(vocabulary: Tokenizer, sentences: Sequence[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for start in range(0, len(sentences), _AT_A_TIME):
        for text in vocabulary.normalize(sentences[start : start + _AT_A_TIME]):
            counts.update(word for word in text.split(" ") if not _PLACEHOLDERS & set(word))
    return counts


_PLACEHOLDERS = frozenset(PLACEHOLDERS)


def _keep_all() -> float:
    """Drops no merge, which is what BPE-dropout draws for."""
    return 1.0


def _runs(symbols: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields the symbols of a word in runs of one script."""
    start, before = 0, ""
    for place, symbol in enumerate(symbols):
        scripts = [script for script in map(_script, symbol) if script]
        if scripts and before and scripts[0] != before:
            yield tuple(symbols[start:place])
            start = place
        before = scripts[-1] if scripts else before
    yield tuple(symbols[start:])


@cache
def _script(character: str) -> str:
    """Returns the script of a letter, one name for what is no letter, and "" for what joins any.

    Python knows no scripts, but the names of letters begin with them.
    """
    category = unicodedata.category(character)
    if character == SPACE_SIGN or category == "Cf" or category[0] == "M":
        return ""
    if category[0] != "L":
        return "common"
    name = unicodedata.name(character, "").partition(" ")[0]
    return _ONE_SCRIPT.get(name, name)
