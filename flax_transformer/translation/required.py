"""Phrases that translations must hold, from texts to tokens.

A phrase is required in the pieces that it is split into as a text of its own, so that the words
around it may go on from it: "chat" is in "chats".
"""

from collections.abc import Sequence

import numpy as np

from flax_transformer.config import Config
from flax_transformer.decoding.lengths import longest_source, longest_target
from flax_transformer.errors import UserError, require
from flax_transformer.text.normalization import is_blank
from flax_transformer.text.sentences import TrainedLengths
from flax_transformer.text.tokenizer import PAD_ID, Tokenizer
from flax_transformer.translation.long_lines import Piece
from flax_transformer.translation.prefixes import cut_to_begin

Shape = tuple[int, int]
"""Most phrases of a piece, and most tokens of a phrase."""


def cut_to_hold(
    lines: Sequence[str],
    prefixes: Sequence[str] | None,
    required: Sequence[Sequence[str]] | None,
    config: Config,
    tokenizer: Tokenizer,
    trained: TrainedLengths | None = None,
    tags: Sequence[str] | None = None,
) -> list[list[Piece]]:
    """Returns the pieces of each line as `cut_to_begin` does, told which phrases they must hold.

    A line with phrases is one piece.

    Raises `UserError` as `cut_to_begin` and `require_phrases`, and where phrases are required of
    other than one beam search.
    """
    cut = cut_to_begin(lines, prefixes, config, tokenizer, trained, tags)
    for place, phrases in enumerate(required or ()):
        if any(phrases):
            require(
                config.decoding.is_one_beam,
                "phrases are required, which only one beam search sees to: leave out "
                "decoding.sampling and diversity_groups",
            )
            prefix = None if prefixes is None else [prefixes[place]]
            tag = None if tags is None else [tags[place]]
            (pieces,) = cut_to_begin([lines[place]], prefix, config, tokenizer, tags=tag)
            cut[place] = require_phrases(pieces, phrases, config, tokenizer)
    return cut


def require_phrases(
    pieces: Sequence[Piece], phrases: Sequence[str], config: Config, tokenizer: Tokenizer
) -> list[Piece]:
    """Returns the one piece of a line whose translation must hold `phrases`, told so.

    Nobody knows which piece of a line a phrase belongs to, so there must not be several.

    Raises `UserError` where there are, where the line has nothing to translate, and where the
    phrases leave no room for an end symbol.
    """
    require(
        len(pieces) <= 1,
        f"a line with required phrases has more than {longest_source(config)} tokens, but must be "
        "translated as a whole: give a shorter one",
    )
    piece = pieces[0] if pieces else Piece([], {})
    kept = piece.before + piece.after
    texts = [text for text in phrases if not is_blank(text) and text.strip() not in kept]
    for placeholder, word in sorted(piece.words.items(), key=lambda item: -len(item[1])):
        texts = [text.replace(word, placeholder) for text in texts]
    found = tokenizer.target.encode_phrases(list(dict.fromkeys(texts)))
    if not found:
        return list(pieces)
    require(
        bool(piece.ids),
        f"the phrase {phrases[0]!r} is required of a line without words to translate: leave it out",
    )
    count = sum(map(len, found)) + len(piece.forced) + len(piece.word)
    longest = longest_target(config, len(piece.ids) + 1)
    if count >= longest:
        remedy = "" if config.model.learns_positions else ", or raise decoding.extra_length"
        raise UserError(
            f"the required phrases {list(phrases)} and the prefix may take {count} tokens, but a "
            f"translation of their line has at most {longest}, end symbol included: require "
            f"less{remedy}"
        )
    return [piece._replace(required=found)]


def shape_of_required(pieces: Sequence[Piece]) -> Shape | None:
    """Returns a shape that holds the phrases of each piece; None where there are none.

    Both numbers are powers of two, so that few programs are compiled.
    """
    phrases = max((len(piece.required) for piece in pieces), default=0)
    if not phrases:
        return None
    tokens = max(len(phrase) for piece in pieces for phrase in piece.required)
    return 1 << (phrases - 1).bit_length(), max(4, 1 << (tokens - 1).bit_length())


def lay_out_required(pieces: Sequence[Piece], b: int, shape: Shape) -> np.ndarray:
    """Returns the phrases (b,c,p) of pieces, then PAD; rows after the pieces have none."""
    required = np.full((b, *shape), PAD_ID, np.int32)
    for row, piece in enumerate(pieces):
        for place, phrase in enumerate(piece.required):
            required[row, place, : len(phrase)] = phrase
    return required
