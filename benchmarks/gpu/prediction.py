"""What a dry run says of the step on the device at hand, to be put beside what was measured.

python -m benchmarks.gpu.prediction --config configs/wmt_base.py --record prediction.json
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax
import tyro

from benchmarks.recording import Recorded, append_record
from benchmarks.train_step.ours import settings_before_flags
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import Config
from flax_transformer.dry_run.chips import CHIPS
from flax_transformer.dry_run.compilation import Memory, compile_step
from flax_transformer.dry_run.roofline import roofline, utilisation


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Compiles the training step for the first device, and says the least that it can take."""

    config: Path
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(words: Sequence[str]) -> None:
    default = Arguments(
        config=tyro.MISSING, record=tyro.MISSING, settings=settings_before_flags(words)
    )
    arguments = parse_arguments(Arguments, words, default)
    device = jax.devices()[0]
    step = compile_step(arguments.settings, [device])
    figures = {
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
    append_record(arguments, ("jax", "jaxlib"), figures)


if __name__ == "__main__":
    run_command(main)
