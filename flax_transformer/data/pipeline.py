"""Batches read ahead of the step that needs them."""

from collections.abc import Iterator

import grain.python as grain

from flax_transformer.batch import Batch
from flax_transformer.data.packing import PackedRows


def read_batches(rows: PackedRows, steps: range, own: slice) -> Iterator[Batch]:
    """Yields the `own` rows of the batches of `steps`, in order, made by a background thread."""
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=rows.config.read_ahead)
    numbers = grain.MapDataset.range(steps.start, steps.stop)
    batches = numbers.map(lambda step: rows.batch(int(step), own))
    return iter(batches.to_iter_dataset(options))
