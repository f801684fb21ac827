"""Numbers that are infinite or not a number end a run, before anything of them is kept."""

from pathlib import Path
from typing import Any

import numpy as np

from flax_transformer.checkpoints.writing import Checkpoints
from flax_transformer.errors import DivergedError


def require_finite(
    metrics: dict[str, Any], step: int, checkpoints: Checkpoints, workdir: Path
) -> None:
    """Raises `DivergedError` unless loss, gradient and parameters of `step` are finite.

    metrics: as `train_step` gives them, on the host.
    """
    finite = {
        "the loss": np.isfinite(metrics["loss"]),
        "the gradient": np.isfinite(metrics["gradient_norm"]),
        "the parameters": metrics["parameters_finite"],
    }
    broken = next((name for name, is_finite in finite.items() if not is_finite), None)
    if broken is None:
        return
    newest = checkpoints.newest()
    kept = "No checkpoint had been written"
    if newest is not None:
        kept = f"Step {newest:,} is the newest checkpoint in {workdir}, and finite"
    raise DivergedError(
        f"{broken} became infinite or not a number in step {step:,}. {kept}; nothing was written "
        "since. Lower optimizer.learning_rate_scale or set optimizer.clip_norm, in a new work "
        "directory"
    )
