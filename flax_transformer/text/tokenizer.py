"""One SentencePiece vocabulary for source and target: text to ids and back.

Text is normalised first, by rules that the vocabulary keeps (normalization.py). Characters without
a piece are spelled in bytes, so that no text is unknown and nothing else is lost. Under the
`identity` normalisation `decode(encode(text)) == text` for every text, spaces and control
characters included. The one exception is U+2581, by which SentencePiece writes a space: it becomes
a space.
"""

import bisect
import functools
import hashlib
import itertools
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import sentencepiece

from flax_transformer.errors import UserError
from flax_transformer.text.byte_pairs import merge
from flax_transformer.text.placeholders import PLACEHOLDERS

PAD_ID, EOS_ID, BOS_ID, UNK_ID = range(4)
"""Special symbols. Text is never encoded to them, not even text that spells their names. The tags
of a corpus are such symbols too."""

SPACE_SIGN = "\u2581"
"""By which SentencePiece writes a space."""

_TAG = re.compile(r"<[^<>]+>")
_PROBE = "a 1 \U0001f600"  # which every normalisation keeps


class Tokenizer:
    """A trained vocabulary; thread-safe.

    Raises `ValueError` for bytes that are not such a model.
    """

    def __init__(self, model: bytes):
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise ValueError("not a SentencePiece model") from None
        processor = self._processor
        # An empty model, or one cut short, can pass for a model: ask for what comes last in it too.
        specials = [processor.pad_id(), processor.eos_id(), processor.bos_id(), processor.unk_id()]
        if specials != [PAD_ID, EOS_ID, BOS_ID, UNK_ID]:
            raise ValueError(f"the special symbols have the ids {specials} instead of 0 to 3")
        self.model = model
        """The vocabulary as a file."""
        self.vocabulary_size: int = processor.get_piece_size()
        first = processor.piece_to_id("<0x00>")  # after the tags
        self.byte_ids = range(first, first + 256)
        """The ids of the bytes, by which characters without a piece are spelled."""
        self.text_pieces: Mapping[str, int] = self._check_pieces()
        """The id of every piece of text; the earlier it was merged in training, the smaller."""
        known = {" ", *(piece for piece in self.text_pieces if len(piece) == 1)}
        self.characters = frozenset(known.difference(PLACEHOLDERS))
        """The characters of text that are not spelled in bytes."""
        self.has_placeholders: bool = known.issuperset(PLACEHOLDERS)
        """Whether the vocabulary has placeholders: an earlier version did not give it any."""
        self._check_round_trip()
        self.fingerprint: str = hashlib.sha256(model).hexdigest()

    def _check_pieces(self) -> dict[str, int]:
        """Returns the pieces of text and their ids.

        Raises `ValueError` where a piece is not of the kind that its place asks for, as in a model
        of which some bytes have changed.
        """
        processor, every = self._processor, range(self.vocabulary_size)
        try:
            pieces = processor.id_to_piece(list(every))
        except UnicodeDecodeError:
            raise ValueError("a piece is not UTF-8") from None
        later = every[self.byte_ids.stop :]
        added_tags = {i for i in later if _TAG.fullmatch(pieces[i]) and processor.is_control(i)}
        ordinary = [i for i in later if i not in added_tags]
        named = [f"<0x{byte:02X}>" for byte in range(256)]
        if pieces[self.byte_ids.start : self.byte_ids.stop] != named:
            raise ValueError("the 256 bytes are not all there")
        kinds = {
            "control symbols": (
                processor.is_control,
                {*every} - {UNK_ID, *self.byte_ids, *ordinary},
            ),
            "unknown symbols": (processor.is_unknown, {UNK_ID}),
            "bytes": (processor.is_byte, {*self.byte_ids}),
            "unused pieces": (processor.is_unused, set()),
        }
        for name, (is_kind, expected) in kinds.items():
            if {
                i for i, found in zip(every, is_kind(list(every)), strict=True) if found
            } != expected:
                raise ValueError(f"the {name} are not where they should be")
        return {pieces[i]: i for i in ordinary}

    def _check_round_trip(self) -> None:
        """Raises `ValueError` unless the words, the spaces and the bytes of a text survive."""
        try:
            ids = self._processor.encode(_PROBE, num_threads=1)
            (text,) = self.decode(self.encode([_PROBE]))
        except (UserError, RuntimeError, IndexError, UnicodeDecodeError):
            text, ids = "", []
        if text.split() != _PROBE.split() or UNK_ID in ids:
            raise ValueError("it does not give back the text that it encodes")

    def __reduce__(self) -> tuple:
        """Has another process load the model afresh."""
        return Tokenizer, (self.model,)

    before: Sequence[int] = ()
    """Ids that every text begins with: none."""

    @property
    def target(self) -> "Tokenizer":
        """What splits targets: the same, as source and target share the vocabulary."""
        return self

    @functools.cached_property
    def tags(self) -> Mapping[str, int]:
        """The symbols for a corpus' tags, and their ids."""
        every = list(range(self.vocabulary_size))
        controls = itertools.compress(every, self._processor.is_control(every))
        ids = [i for i in controls if i not in (PAD_ID, EOS_ID, BOS_ID)]
        return dict(zip(self.pieces(ids), ids, strict=True))

    def has_tag(self, tag: str) -> bool:
        """Returns whether there is a symbol for a corpus' tag."""
        return bool(self._processor.is_control(self._processor.piece_to_id(tag)))

    def tag_id(self, tag: str) -> int:
        """Returns the id of a tag's symbol, which `train_tokenizer` was told of.

        Raises `UserError` if there is none.
        """
        if not self._processor.is_control(found := self._processor.piece_to_id(tag)):
            raise UserError(
                f"the vocabulary has no symbol for data.train's tag {tag}: delete tokenizer.model "
                "from the work directory to have one learned with it"
            )
        return found

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without end or beginning symbols.

        Each distinct word is encoded once, which in a large list takes half the time. No piece
        reaches over a space, so the ids of a text are those of its words, one after the other.
        """
        rows = self._words(texts)
        words = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
        ids = dict(zip(words, self._processor.encode(words, num_threads=1), strict=True))
        for word, again in zip(words, self._normalize(words), strict=True):
            # The empty word between two spaces, or one that normalisation would change again.
            if again != SPACE_SIGN + word:
                ids[word] = self._split_at_random(SPACE_SIGN + word, 0.0, lambda: 1.0)
        return [list(itertools.chain.from_iterable(map(ids.__getitem__, row))) for row in rows]

    def encode_phrases(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text as it stands inside another one, behind its beginning."""
        return [ids[len(self.before) :] for ids in self.encode(texts)]

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        """Returns the words of each text: what follows each space after normalisation.

        Normalisation puts a space before the text.
        """
        return [text.split(SPACE_SIGN)[1:] for text in self._normalize(list(texts))]

    def normalize(self, texts: Sequence[str]) -> list[str]:
        """Returns each text as it is before it is split into pieces."""
        return [" ".join(words) for words in self._words(texts)]

    def _normalize(self, texts: list[str]) -> list[str]:
        try:
            return self._processor.normalize(texts)
        except UnicodeDecodeError:
            raise _damaged_rules() from None

    def sample(self, texts: Sequence[str], dropout: float, seed: int) -> list[list[int]]:
        """Returns the ids of each text, split by BPE-dropout (Provilkov et al. 2020).

        Every merge of two pieces is skipped with probability `dropout`. The same `seed` gives the
        same ids.
        """
        # Not SentencePiece's own sampling: its seed gives other splittings in every process.
        draw = random.Random(seed).random
        return [
            [
                token
                for word in row
                for token in self._split_at_random(SPACE_SIGN + word, dropout, draw)
            ]
            for row in self._words(texts)
        ]

    def ids_of_piece(self, piece: str) -> list[int]:
        """Returns the ids that `piece`, which may be one of another vocabulary, is split to."""
        return self._split_at_random(piece, 0.0, lambda: 1.0)

    def _split_at_random(self, word: str, dropout: float, draw: Callable[[], float]) -> list[int]:
        symbols = merge(word, self.text_pieces, dropout, draw)
        return [i for symbol in symbols for i in self._ids_of_symbol(symbol)]

    def _ids_of_symbol(self, symbol: str) -> list[int]:
        if symbol in self.text_pieces:
            return [self.text_pieces[symbol]]
        return [self.byte_ids[byte] for byte in symbol.encode()]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Returns the text of each sequence, with the target's spaces at punctuation.

        Those are the spaces that the target's training text has there. Special symbols are left
        out; bytes that are not UTF-8 become U+FFFD.
        """
        plain = [[int(i) for i in sequence if i > UNK_ID] for sequence in ids]
        if not plain:  # SentencePiece takes an empty list for one sequence, not for none.
            return []
        try:
            return self._processor.decode(plain, num_threads=1)
        except UnicodeDecodeError:
            raise _damaged_rules() from None

    def piece_id(self, piece: str) -> int | None:
        """Returns the id of a piece of text, written as SentencePiece does."""
        return self.text_pieces.get(piece)

    def ids_beginning(self, text: str) -> list[int]:
        """Returns the ids of the pieces that begin with `text`, likewise."""
        first = bisect.bisect_left(self._sorted, text)
        after = bisect.bisect_left(self._sorted, text + chr(sys.maxunicode))
        return [self.text_pieces[piece] for piece in self._sorted[first:after]]

    @functools.cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.text_pieces)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns what each id stands for, as SentencePiece writes it.

        U+2581 is the space before a word, </s> the end.
        """
        return [self._processor.id_to_piece(i) for i in ids]


def _damaged_rules() -> UserError:
    return UserError(  # seen this late, since a text needs few of the 200 kB of its rules
        "tokenizer.model is damaged: its normalisation makes text that is not UTF-8. Put a whole "
        "copy into the work directory"
    )
