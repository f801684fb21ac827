"""How long the sentences of a search may be.

Where positions are learned, those that no row of training reaches keep their random initial values,
so no sentence is longer than in training.
"""

from flax_transformer.config import Config


def longest_source(config: Config) -> int:
    """Returns the most source tokens in one piece, end symbol included."""
    longest = config.decoding.max_source_length
    return min(longest, config.batch.source_length) if config.model.learns_positions else longest


def longest_target(config: Config, source_tokens: int) -> int:
    """Returns the most tokens of a translation of `source_tokens`, end symbols included in both."""
    longest = source_tokens + config.decoding.extra_length
    return min(longest, config.batch.target_length) if config.model.learns_positions else longest
