"""Batches of random tokens: sentences of ordinary lengths, packed, or rows that are full."""

import numpy as np

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.data.packing import PackedRows, lay_out
from flax_transformer.data.token_cache import RaggedArray, TokenizedPairs
from flax_transformer.text.tokenizer import EOS_ID, UNK_ID


def full_batches(config: Config, count: int, tokens: int | None = None) -> list[Batch]:
    """Returns batches without a free slot: rows of pairs of `tokens` on each side, which divide the
    rows' lengths; by default one pair fills a row."""
    rows, lengths = config.batch.rows, [config.batch.source_length, config.batch.target_length]
    per_row = 1 if tokens is None else min(lengths) // tokens
    wanted = count * rows * per_row
    pairs = _random_pairs(config, np.tile([length // per_row for length in lengths], (wanted, 1)))
    members = np.arange(wanted).reshape(count, rows, per_row)
    return [lay_out(pairs, list(some), *lengths) for some in members]


def packed_batches(config: Config, count: int, sentence_tokens: int) -> list[Batch]:
    """Returns batches of packed sentences of about `sentence_tokens`."""
    rows, longest = config.batch.rows, [config.batch.source_length, config.batch.target_length]
    random = np.random.default_rng(config.training.seed)
    wanted = 2 * count * rows * max(longest) // sentence_tokens
    # Gamma, as sentences are: a long tail, and a translation about as long as its source.
    source = random.gamma(4, sentence_tokens / 4, wanted)
    target = source * random.normal(1, 0.15, wanted)
    lengths = np.clip(np.stack([source, target], axis=1).round().astype(int), 2, longest)
    pairs = _random_pairs(config, lengths)
    packed = PackedRows(pairs, np.arange(wanted), config.batch, config.training.seed)
    return [packed.batch(step) for step in range(count)]


def _random_pairs(config: Config, lengths: np.ndarray) -> TokenizedPairs:
    """Random tokens in pairs of `lengths` (n,2), EOS included."""
    random = np.random.default_rng(config.training.seed)
    sides = []
    for side in lengths.T:
        offsets = np.concatenate([[0], np.cumsum(side)])
        values = random.integers(UNK_ID + 1, config.tokenizer.vocabulary_size, offsets[-1])
        values[offsets[1:] - 1] = EOS_ID
        sides.append(RaggedArray(values.astype(np.int32), offsets))
    return TokenizedPairs(*sides)
