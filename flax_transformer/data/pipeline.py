"""Batches read ahead of the step that needs them."""

from collections.abc import Iterator

import grain.python as grain

from flax_transformer.data.packing import Batch, PackedRows


def read_batches(
    rows: PackedRows,
    first_step: int,
    last_step: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """The batches of steps `first_step` up to, not including, `last_step`, in order.

    Every process makes only its own share of the rows, prepared by a background thread.
    """
    share = rows.config.rows // process_count
    own = slice(process_index * share, (process_index + 1) * share)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=rows.config.read_ahead)
    steps = grain.MapDataset.range(first_step, last_step)
    batches = steps.map(lambda step: rows.batch(int(step), own))
    return iter(batches.to_iter_dataset(options))
