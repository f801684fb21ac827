"""Checkpoints of whole states, as a run writes and reads them."""

from pathlib import Path
from typing import Any

import jax

from flax_transformer.checkpoints.averaging import Loaded, load_parameters
from flax_transformer.checkpoints.progress import Progress
from flax_transformer.checkpoints.restoring import Restored, restore_newest
from flax_transformer.checkpoints.writing import Checkpoints
from flax_transformer.config import Config
from flax_transformer.models.initialization import abstract_params
from flax_transformer.training.state import TrainState, abstract_state


def save_state(checkpoints: Checkpoints, state: TrainState, progress: Progress) -> None:
    checkpoints.save(int(state.step), state.params, state.optimizer_state, progress)


def save_best(checkpoints: Checkpoints, state: TrainState, progress: Progress) -> None:
    checkpoints.save_best(int(state.step), state.params, progress)


def restore_newest_state(
    workdir: Path, config: Config, mesh: jax.sharding.Mesh, *more: Any
) -> Restored | None:
    like = abstract_state(config, mesh)
    return restore_newest(workdir, like.params, like.optimizer_state, *more)


def load_chosen(workdir: Path, config: Config, mesh: jax.sharding.Mesh) -> Loaded:
    return load_parameters(workdir, config, abstract_params(config, mesh))
