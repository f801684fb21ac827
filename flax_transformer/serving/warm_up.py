"""What is compiled before the first request, so that none has to wait for it."""

from collections.abc import Callable, Sequence
from functools import partial

from flax_transformer.api.model import Model
from flax_transformer.config import Config
from flax_transformer.decoding.lengths import longest_target
from flax_transformer.inspection.attention import attend_ahead, padded_length
from flax_transformer.serving.limits import Limits


def longest_to_attend(config: Config, limits: Limits) -> int:
    """Returns the most tokens of a text whose attention is shown.

    The translation of a source that may be looked into may be longer than the source.
    """
    most = limits.inspected_tokens
    return max(most, longest_target(config, most))


def programs(model: Model, beam_sizes: Sequence[int], limits: Limits) -> list[Callable[[], object]]:
    """Returns what compiles and runs each program that requests may need.

    beam_sizes: that requests may ask for
    """
    found = [job for width in beam_sizes for job in model.programs_ahead(width)]
    longest = longest_to_attend(model.config, limits)
    lengths = sorted({padded_length(length) for length in range(1, longest + 1)})
    return found + [partial(attend_ahead, model.config, model.params, each) for each in lengths]
