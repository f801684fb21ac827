"""Texts that translations must begin with, and tags that stand before sources.

The search is forced to take the tokens of a prefix, split as any text is. Its last word may be
unfinished, and then the pieces of the finished word are others: "ch" is the beginning of "chat". So
of that word not the pieces are forced but the characters, and the search chooses among all pieces
that spell them or go on from them. White space after the last word says that it is finished; its
pieces are then forced like the others. So are those of a word of 15 characters or more, or with
characters that are spelled in bytes.

A tag is a symbol that a share of the training text had before its sources, such as <bt> (the data's
`tag`). Before a source it asks for a translation like those.
"""

from collections.abc import Sequence

import numpy as np

from flax_transformer.config import Config
from flax_transformer.decoding.lengths import longest_source, longest_target
from flax_transformer.errors import UserError, require
from flax_transformer.text.normalization import is_blank
from flax_transformer.text.sentences import TrainedLengths
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.translation.long_lines import Piece, cut_lines

PLACES = 16
"""Those in a word of which the characters are forced: its end, and that before each of them."""

_SPACE = "\u2581"  # as SentencePiece writes it

_SHOWN = 40
"""Characters of a prefix in a message."""


def cut_to_begin(
    lines: Sequence[str],
    prefixes: Sequence[str] | None,
    config: Config,
    tokenizer: Tokenizer,
    trained: TrainedLengths | None = None,
    tags: Sequence[str] | None = None,
) -> list[list[Piece]]:
    """Returns the pieces of each line as `cut_lines` does, each with the line's tag before it, and
    the first told how to begin.

    A line with a prefix is one piece if the model can read it as a whole, since nobody knows which
    of its sentences the prefix translates.

    Raises `UserError` where a prefix leaves no room for an end symbol, where its line has nothing
    to translate, and for a tag that the vocabulary lacks.
    """
    # The end symbol takes the last place of a piece.
    most = longest_source(config) - 1
    cut = cut_lines(lines, tokenizer, most, trained)
    for place, tag in enumerate(tags or ()):
        if tag:
            (pieces,) = cut_lines([lines[place]], tokenizer, most - 1, trained)
            cut[place] = _tagged(pieces, tag, tokenizer)
    if before := tokenizer.target.before:
        cut = [[piece._replace(forced=before) for piece in pieces] for pieces in cut]
    for place, prefix in enumerate(prefixes or ()):
        if is_blank(prefix):
            continue
        pieces, tag = cut[place], tags[place] if tags else ""
        if len(pieces) > 1:
            (pieces,) = cut_lines([lines[place]], tokenizer, most - bool(tag))
            pieces = _tagged(pieces, tag, tokenizer) if tag else pieces
        first = _begin(pieces[0] if pieces else Piece([], {}), prefix, tokenizer.target)
        _require_room(first, prefix, config, tokenizer.target)
        cut[place] = [first, *pieces[1:]]
    return cut


def require_tag(tag: str, tokenizer: Tokenizer) -> int:
    """Returns the id of `tag`; raises `UserError` where the vocabulary lacks it."""
    if tag not in tokenizer.tags:
        known = ", ".join(tokenizer.tags)
        remedy = f"has {known}: choose from these" if known else "has none: leave it out"
        raise UserError(f"the tag {tag!r} is not in the vocabulary, which {remedy}")
    return tokenizer.tags[tag]


def _tagged(pieces: list[Piece], tag: str, tokenizer: Tokenizer) -> list[Piece]:
    """Returns `pieces` with the tag before each that is to be translated."""
    symbol = require_tag(tag, tokenizer)
    return [piece._replace(ids=[symbol, *piece.ids]) if piece.ids else piece for piece in pieces]


def _begin(piece: Piece, prefix: str, tokenizer: Tokenizer) -> Piece:
    """Returns `piece` with what makes its translation begin with `prefix`.

    What stays as it is around a piece is not to be translated twice, and gives way where the prefix
    begins otherwise.
    """
    (text,) = tokenizer.normalize([prefix])
    text, before = text.rstrip(), piece.before.rstrip()
    until = text.removesuffix(piece.after.strip()).rstrip()
    ended, text = prefix[-1:].isspace() or until != text, until
    if before.startswith(text):
        return piece
    if not text.startswith(before):
        piece, before = piece._replace(before=""), ""
    elif before:
        text = text[len(before) :].lstrip()
    for placeholder, word in sorted(piece.words.items(), key=lambda item: -len(item[1])):
        text = text.replace(word, placeholder, 1)
    *finished, word = text.split(" ")
    if ended or len(word) + 1 >= PLACES or not tokenizer.characters.issuperset(word):
        (forced,) = tokenizer.encode([text])
        return piece._replace(forced=forced)
    (forced,) = tokenizer.encode([" ".join(finished)]) if finished else (list(tokenizer.before),)
    return piece._replace(forced=forced, word=_SPACE + word)


def lead_through(word: str, tokenizer: Tokenizer, nexts: np.ndarray) -> None:
    """Writes into `nexts` (places,v), in which nothing leads anywhere, where tokens lead in `word`.

    Place n is that before the n-th character, and 0 that behind the last (decoding/prefix.py).
    """
    for place in range(1, len(word) + 1):
        rest = word[place - 1 :]
        for length in range(1, len(rest)):
            if (token := tokenizer.piece_id(rest[:length])) is not None:
                nexts[place, token] = place + length
        nexts[place, tokenizer.ids_beginning(rest)] = 0


def _require_room(piece: Piece, prefix: str, config: Config, tokenizer: Tokenizer) -> None:
    shown = prefix if len(prefix) <= _SHOWN else prefix[:_SHOWN] + "..."
    require(
        bool(piece.ids) or not (piece.forced or piece.word),
        f"the prefix {shown!r} is that of a line without words to translate: leave it empty",
    )
    longest = longest_target(config, len(piece.ids) + 1)
    count = len(piece.forced) + len(tokenizer.encode([piece.word.removeprefix(_SPACE)])[0])
    if count >= longest:
        remedy = "" if config.model.learns_positions else ", or raise decoding.extra_length"
        raise UserError(
            f"the prefix {shown!r} has {count} tokens, but a translation of its line has at most "
            f"{longest}, end symbol included: shorten it{remedy}"
        )
