"""What is compiled before the first request, so that none has to wait for it."""

from collections.abc import Callable, Sequence
from functools import partial

from flax_transformer.api.model import Model
from flax_transformer.inspection.attention import attend_ahead, padded_length
from flax_transformer.serving.limits import Limits


def programs(model: Model, beam_sizes: Sequence[int], limits: Limits) -> list[Callable[[], object]]:
    """Returns what compiles and runs each program that requests may need.

    beam_sizes: that requests may ask for
    """
    found = [job for width in beam_sizes for job in model.programs_ahead(width)]
    # A translation may be longer than the source that is looked into.
    longest = limits.inspected_tokens + model.config.decoding.extra_length
    lengths = sorted({padded_length(length) for length in range(1, longest + 1)})
    return found + [partial(attend_ahead, model.config, model.params, each) for each in lengths]
