"""The numbers of pieces in an exported model: those that it came with, or ours."""

from flax_transformer.exchange.piece_files import is_unused
from flax_transformer.text.imported_tokenizer import ImportedTokenizer
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer


class PieceOrder:
    """Their numbers of tokens.

    source, target:               our id for each of theirs
    source_pieces, target_pieces: their id of each piece
    pad, eos, start:              their ids; `start` is what the decoder begins with
    """

    def __init__(self, tokenizer: Tokenizer):
        rows = [list(range(tokenizer.vocabulary_size))] * 2
        if isinstance(tokenizer, ImportedTokenizer) and tokenizer.their_ids is not None:
            rows = tokenizer.their_ids
        self.source, self.target = (_inverse(own) for own in rows)
        self.source_pieces, self.target_pieces = (
            {piece: i for i, piece in enumerate(side.pieces(own)) if not is_unused(piece)}
            for side, own in (
                (tokenizer, self.source),
                (tokenizer.target, self.target),
            )
        )
        self.pad, self.eos, self.start = (rows[1][i] for i in (PAD_ID, EOS_ID, BOS_ID))


def _inverse(rows: list[int]) -> list[int]:
    """Our id for each of theirs; where BOS is a copy of another row, that one's."""
    found = dict.fromkeys(range(max(rows) + 1), PAD_ID)
    for ours, theirs in enumerate(rows):
        if theirs >= 0 and not (ours == BOS_ID and theirs in rows[:BOS_ID]):
            found[theirs] = ours
    return [found[i] for i in range(len(found))]
