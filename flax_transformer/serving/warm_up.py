"""What is compiled before the first request, so that none has to wait for it."""

from collections.abc import Callable, Sequence
from functools import partial

from flax_transformer.api.model import Model
from flax_transformer.inspection.attention import lengths_to_attend
from flax_transformer.serving.limits import Limits


def programs(model: Model, beam_sizes: Sequence[int], limits: Limits) -> list[Callable[[], object]]:
    """Returns what compiles and runs each program that requests may need.

    beam_sizes: that requests may ask for
    """
    found: list[Callable[[], object]] = []
    for beam_size in beam_sizes:
        found += model.programs(beam_size)
    longest = limits.inspected_tokens + model.config.decoding.extra_length
    found += [partial(model.attend_padded, length) for length in lengths_to_attend(longest)]
    return found
