"""What training feeds to a model."""

from typing import Any, NamedTuple


class Batch(NamedTuple):
    """Packed rows; all int32, source arrays (b,s), target arrays (b,t), of numpy here and of jax
    on the devices.

    Segments number the pairs of a row from 1 (0 is padding), positions count from 0 in each.
    """

    source_ids: Any
    source_segments: Any
    source_positions: Any
    target_inputs: Any
    """BOS and the target without its last token."""
    target_outputs: Any
    """The target with EOS: what the model must predict at each position."""
    target_segments: Any
    target_positions: Any
