"""What dry runs say of a step and of beam search on the device at hand, beside what was measured.

python -m benchmarks.gpu.prediction --config configs/wmt_base.py --record prediction.json
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from benchmarks.recording import Recorded, append_record
from benchmarks.train_step.ours import settings_before_flags
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import Config
from flax_transformer.dry_run.chips import CHIPS, Chip
from flax_transformer.dry_run.compilation import Memory, compile_step
from flax_transformer.dry_run.roofline import roofline, utilisation
from flax_transformer.dry_run.search import Position, Search, compile_search


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Compiles step and search for the first device, and says the least that they can take."""

    config: Path
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(words: Sequence[str]) -> None:
    default = Arguments(
        config=tyro.MISSING, record=tyro.MISSING, settings=settings_before_flags(words)
    )
    arguments = parse_arguments(Arguments, words, default)
    device = jax.devices()[0]
    step = compile_step(arguments.settings, [device])
    figures: dict[str, Any] = {
        "device": device.device_kind,
        "rows": arguments.settings.batch.rows,
        "bytes_moved": step.bytes_moved,
        "products_flops": step.traced_flops,
        "memory": dataclasses.asdict(step.memory),
    }
    chip = CHIPS.get(device.device_kind)
    if chip is not None and isinstance(step.memory, Memory):
        least = roofline(step, chip)
        figures |= {
            "seconds": dataclasses.asdict(least),
            "bound": least.bound,
            "mfu_at_most": utilisation(step, chip, least.seconds),
        }
    search = compile_search(arguments.settings, [device])
    figures["search"] = {
        "rows": search.rows,
        "beams": search.config.decoding.beam_size,
        "positions": [_position(search, each, chip) for each in search.positions],
    }
    append_record(arguments, ("jax", "jaxlib"), figures)


def _position(search: Search, position: Position, chip: Chip | None) -> dict[str, Any]:
    figures: dict[str, Any] = dataclasses.asdict(position)
    if chip is not None:
        figures["tokens_per_second_at_most"] = search.rows / search.seconds(position, chip)
    return figures


if __name__ == "__main__":
    run_command(main)
