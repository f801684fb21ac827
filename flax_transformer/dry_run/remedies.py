"""Settings that make a training step need less memory."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from flax_transformer.config import Config, TransformerConfig
from flax_transformer.dry_run.compilation import Step, TooLarge


@dataclass(frozen=True)
class Remedy:
    """A changed setting that should make a step fit."""

    flags: str
    """As they are typed."""
    config: Config
    price: str
    """What it costs, for a person."""


def remedies(step: Step, room: float) -> Iterator[Remedy]:
    """Yields at most two remedies for a step that needs over `room` bytes per chip, cheaper first.

    Where the state alone is too large, it must be split over more chips. Otherwise the temporaries
    are too large, and these fall with the rows that are computed at a time.
    """
    config, mesh = step.config, step.mesh
    total = step.memory.needed if isinstance(step.memory, TooLarge) else step.memory.total
    # A gradient as large as the parameters, a third of the state, is needed beside the state.
    fixed = step.state_bytes * 4 / 3
    if fixed > 0.9 * room:
        split = mesh.shape["fsdp"] * math.ceil(fixed / (0.5 * room))
        if sizes := [n for n in _divisors(mesh.size) if n >= split]:
            changed = dataclasses.replace(config.mesh, data=-1, fsdp=sizes[0])
            yield Remedy(
                f"--mesh.data -1 --mesh.fsdp {sizes[0]}",
                dataclasses.replace(config, mesh=changed),
                "parameters are gathered when they are needed",
            )
        return
    wanted = max(2, math.ceil((total - fixed) / (0.95 * room - fixed)))
    rows = config.batch.rows // (mesh.shape["data"] * mesh.shape["fsdp"])
    now = config.training.accumulation_steps
    if parts := [n for n in _divisors(rows) if n >= wanted * now and n % now == 0]:
        yield _accumulate(config, parts[0])
    if isinstance(config.model, TransformerConfig) and config.model.remat != "everything":
        changed_model = dataclasses.replace(config.model, remat="everything")
        yield Remedy(
            "--model.remat everything",
            dataclasses.replace(config, model=changed_model),
            "every layer is computed twice",
        )


def _accumulate(config: Config, parts: int) -> Remedy:
    changed = dataclasses.replace(config.training, accumulation_steps=parts)
    return Remedy(
        f"--training.accumulation-steps {parts}",
        dataclasses.replace(config, training=changed),
        "the same mean gradient, computed in parts, one after the other",
    )


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
