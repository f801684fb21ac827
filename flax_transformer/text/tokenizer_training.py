"""Learns the vocabulary of tokenizer.py from text, by byte-pair encoding."""

import io
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from flax_transformer.config import SMALLEST_VOCABULARY, TokenizerConfig
from flax_transformer.errors import UserError
from flax_transformer.files.whole_file import write_whole
from flax_transformer.text.normalization import as_rules, nfc_rules
from flax_transformer.text.placeholders import PLACEHOLDERS
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Tokenizer

_NOT_TEXT = UNK_ID + 1 + 256  # special symbols and bytes
_QUIET = 2  # SentencePiece's log level for errors, which it raises as well.
_TOO_MANY_CHARACTERS = "smaller than required_chars"
_LONGEST_SENTENCE = 1 << 30  # bytes, the most SentencePiece takes; it skips longer ones silently.


def train_tokenizer(
    sentences: Iterable[str],
    config: TokenizerConfig,
    path: Path,
    seed: int,
    tags: Sequence[str] = (),
    spaces: Mapping[str, str] | None = None,
) -> Tokenizer:
    """Learns a vocabulary by byte-pair encoding and writes it to `path`, whole or not at all.

    seed:   matters only if there are more sentences than `config.training_sentences`.
    tags:   each gets a symbol, which counts in the size; sentences do not hold them.
    spaces: what is written for what in decoded text (`normalization.typographic_spaces`); under
            the identity normalisation nothing is.

    The same arguments give the same file. Where the text has more characters than the vocabulary
    has room for, half of the room goes to the most frequent of them. Raises `UserError` where the
    text does not fit the size of the vocabulary.
    """
    chosen = sample_sentences(sentences, config, seed)
    room = config.vocabulary_size - _NOT_TEXT - len(tags)
    while True:
        try:
            model = _train(chosen, config, tags, spaces or {})
            break
        except RuntimeError as error:
            if _TOO_MANY_CHARACTERS not in str(error) or not (room := room // 2):
                raise _explain(str(error), config) from None
            chosen = _without_rare_characters(chosen, room)
    write_whole(path, model)
    return Tokenizer(model)


def _train(
    sentences: Sequence[str],
    config: TokenizerConfig,
    tags: Sequence[str],
    spaces: Mapping[str, str],
) -> bytes:
    """Returns the vocabulary as a file; raises `RuntimeError` with SentencePiece's complaint."""
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {}
        if config.normalization == "nfc":
            options["normalization_rule_tsv"] = _write_rules(nfc_rules(), Path(folder) / "before")
        else:
            options["normalization_rule_name"] = config.normalization
        if spaces and config.normalization != "identity":
            options["denormalization_rule_tsv"] = _write_rules(spaces, Path(folder) / "behind")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="bpe",
            vocab_size=config.vocabulary_size,
            byte_fallback=True,
            control_symbols=list(tags),
            character_coverage=config.character_coverage,
            required_chars=PLACEHOLDERS,
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            bos_id=BOS_ID,
            unk_id=UNK_ID,
            **options,
            remove_extra_whitespaces=config.normalization != "identity",
            # A word is the same piece at the start of a sentence as after a space.
            add_dummy_prefix=True,
            max_sentence_length=_LONGEST_SENTENCE,
            num_threads=os.cpu_count() or 1,
            minloglevel=_QUIET,
        )
    return _without_paths(model.getvalue())


def _without_paths(model: bytes) -> bytes:
    """Returns the vocabulary without the names of the files that its rules came from."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

    proto = ModelProto.FromString(model)
    for spec in (proto.normalizer_spec, proto.denormalizer_spec):
        spec.ClearField("normalization_rule_tsv")
    return proto.SerializeToString(deterministic=True)


def _write_rules(rules: Mapping[str, str], path: Path) -> str:
    path.write_text(as_rules(rules))
    return str(path)


def _without_rare_characters(sentences: Sequence[str], most: int) -> list[str]:
    """Returns `sentences` with spaces for all but the `most` most frequent characters.

    SentencePiece itself leaves out no more than 2% of a text.
    """
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(sentence)
    kept = {character for character, _ in counts.most_common(most)}
    rare = {ord(character): " " for character in counts.keys() - kept}
    return [sentence.translate(rare) for sentence in sentences]


def sample_sentences(sentences: Iterable[str], config: TokenizerConfig, seed: int) -> list[str]:
    """Returns up to `config.training_sentences`, each as likely as any other (reservoir sampling).

    SentencePiece has such a sampler, but seeds it afresh in each process.
    """
    most = config.training_sentences
    generator = random.Random(seed)
    chosen: list[str] = []
    for index, sentence in enumerate(sentences):
        if index < most:
            chosen.append(sentence)
        elif (place := generator.randrange(index + 1)) < most:
            chosen[place] = sentence
    return chosen


def _explain(message: str, config: TokenizerConfig) -> Exception:
    """Returns an error that puts SentencePiece's complaint in terms of the settings."""
    size = f"tokenizer.vocabulary_size is {config.vocabulary_size}"
    if largest := re.search(r"too high .* <= (\d+)", message):
        remedy = f"at most {largest[1]}, or more text"
        if int(largest[1]) < SMALLEST_VOCABULARY:
            remedy = f"more text, as the smallest vocabulary has {SMALLEST_VOCABULARY}"
        return UserError(
            f"{size}, but the training text has only enough for {largest[1]}: use {remedy}"
        )
    if "!sentences_.empty()" in message:
        return UserError("there is no text to learn the vocabulary from")
    return RuntimeError(f"SentencePiece: {message}")
