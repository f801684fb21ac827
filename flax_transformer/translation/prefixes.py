"""Texts that translations must begin with, as tokens that the search is forced to take.

A prefix is split into pieces like any other text. So where its last word is unfinished, the search
goes on from the pieces of what is there: from "le cha" it finds "le chat" if the model gives it a
piece "t", although training mostly split the word otherwise. White space at the end of a prefix
counts for nothing.
"""

from collections.abc import Sequence

from flax_transformer.config import Config
from flax_transformer.decoding.lengths import longest_source, longest_target
from flax_transformer.errors import UserError, require
from flax_transformer.text.normalization import is_blank
from flax_transformer.text.sentences import TrainedLengths
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.translation.long_lines import Piece, cut_lines

_SHOWN = 40
"""Characters of a prefix in a message."""


def cut_to_begin(
    lines: Sequence[str],
    prefixes: Sequence[str] | None,
    config: Config,
    tokenizer: Tokenizer,
    trained: TrainedLengths | None = None,
) -> list[list[Piece]]:
    """Returns the pieces of each line as `cut_lines` does, the first told how to begin.

    A line with a prefix is one piece if the model can read it as a whole, since nobody knows which
    of its sentences the prefix translates.

    Raises `UserError` where a prefix leaves no room for an end symbol, and where its line has
    nothing to translate.
    """
    # The end symbol takes the last place of a piece.
    most = longest_source(config) - 1
    cut = cut_lines(lines, tokenizer, most, trained)
    for place, prefix in enumerate(prefixes or ()):
        if is_blank(prefix):
            continue
        pieces = cut[place]
        if len(pieces) > 1:
            (pieces,) = cut_lines([lines[place]], tokenizer, most)
        first = _begin(pieces[0] if pieces else Piece([], {}), prefix, tokenizer)
        _require_room(first, prefix, config)
        cut[place] = [first, *pieces[1:]]
    return cut


def _begin(piece: Piece, prefix: str, tokenizer: Tokenizer) -> Piece:
    """Returns `piece` with the ids that make its translation begin with `prefix`.

    What stays as it is around a piece is not to be translated twice, and gives way where the prefix
    begins otherwise.
    """
    (text,) = tokenizer.normalize([prefix])
    text, before = text.rstrip(), piece.before.rstrip()
    text = text.removesuffix(piece.after.strip()).rstrip()
    if before.startswith(text):
        return piece
    if not text.startswith(before):
        piece, before = piece._replace(before=""), ""
    elif before:
        text = text[len(before) :].lstrip()
    for placeholder, word in sorted(piece.words.items(), key=lambda item: -len(item[1])):
        text = text.replace(word, placeholder, 1)
    (forced,) = tokenizer.encode([text])
    return piece._replace(forced=forced)


def _require_room(piece: Piece, prefix: str, config: Config) -> None:
    shown = prefix if len(prefix) <= _SHOWN else prefix[:_SHOWN] + "..."
    require(
        bool(piece.ids) or not piece.forced,
        f"the prefix {shown!r} is that of a line without words to translate: leave it empty",
    )
    longest, count = longest_target(config, len(piece.ids) + 1), len(piece.forced)
    if count >= longest:
        remedy = "" if config.model.learns_positions else ", or raise decoding.extra_length"
        raise UserError(
            f"the prefix {shown!r} has {count} tokens, but a translation of its line has at most "
            f"{longest}, end symbol included: shorten it{remedy}"
        )
