"""Batches of random tokens in sentences of ordinary lengths."""

import numpy as np

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.data.packing import PackedRows, lay_out
from flax_transformer.data.token_cache import RaggedArray, TokenizedPairs
from flax_transformer.text.tokenizer import EOS_ID, UNK_ID


def made_up_pairs(config: Config, lengths: np.ndarray) -> TokenizedPairs:
    """Random tokens in pairs of `lengths` (n,2), EOS included."""
    random = np.random.default_rng(config.training.seed)
    sides = []
    for side in lengths.T:
        offsets = np.concatenate([[0], np.cumsum(side)])
        values = random.integers(UNK_ID + 1, config.tokenizer.vocabulary_size, offsets[-1])
        values[offsets[1:] - 1] = EOS_ID
        sides.append(RaggedArray(values.astype(np.int32), offsets))
    return TokenizedPairs(*sides)


def made_up_batches(config: Config, count: int, sentence_tokens: int | None) -> list[Batch]:
    """Batches of packed sentences of about `sentence_tokens`, or with None of one a row."""
    batch, rows = config.batch, config.batch.rows
    longest = [batch.source_length, batch.target_length]
    if sentence_tokens is None:
        pairs = made_up_pairs(config, np.tile(longest, (count * rows, 1)))
        members = np.arange(count * rows).reshape(count, rows, 1)
        return [lay_out(pairs, list(some), *longest) for some in members]
    random = np.random.default_rng(config.training.seed)
    wanted = 2 * count * rows * max(longest) // sentence_tokens
    # Gamma, as sentences are: a long tail, and a translation about as long as its source.
    source = random.gamma(4, sentence_tokens / 4, wanted)
    target = source * random.normal(1, 0.15, wanted)
    lengths = np.clip(np.stack([source, target], axis=1).round().astype(int), 2, longest)
    pairs = made_up_pairs(config, lengths)
    packed = PackedRows(pairs, np.arange(wanted), batch, config.training.seed)
    return [packed.batch(step) for step in range(count)]
