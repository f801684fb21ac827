"""Gives a vocabulary symbols for further tags, and leaves every id that it has as it is."""

from collections.abc import Sequence

from flax_transformer.text.tokenizer import Tokenizer


def add_tags(vocabulary: Tokenizer, tags: Sequence[str]) -> bytes:
    """Returns the file of `vocabulary` with a symbol for each of `tags` after its last piece."""
    if not tags:
        return vocabulary.model
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

    proto = ModelProto.FromString(vocabulary.model)
    for tag in tags:
        proto.pieces.add(piece=tag, score=0.0, type=ModelProto.SentencePiece.Type.CONTROL)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    model = proto.SerializeToString(deterministic=True)
    Tokenizer(model)  # raises ValueError unless it is one
    return model
