"""Checkpoints of whole states, as a run writes and reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flax_transformer.checkpoints.loading import Loaded, load_parameters
from flax_transformer.checkpoints.progress import Progress
from flax_transformer.checkpoints.restoring import Restored, restore_newest
from flax_transformer.checkpoints.writing import Checkpoints
from flax_transformer.config import Config
from flax_transformer.config.json import save_config
from flax_transformer.models.initialization import abstract_params
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.training.state import TrainState, abstract_state, create_state
from flax_transformer.workdir import CONFIG_FILE, TOKENIZER_FILE


def save_state(checkpoints: Checkpoints, state: TrainState, progress: Progress) -> None:
    checkpoints.save(int(state.step), state.params, state.optimizer_state, progress)


def save_untrained_run(
    workdir: Path,
    config: Config,
    texts: Sequence[str],
    tags: Sequence[str] = (),
    steps: Sequence[int] = (2000,),
) -> None:
    """A work directory as training leaves it, but for the training, with the vocabulary of `texts`.

    steps: of its checkpoints
    """
    save_config(config, workdir / CONFIG_FILE)
    tokenizer = train_tokenizer(
        texts, config.tokenizer, workdir / TOKENIZER_FILE, seed=0, tags=tags
    )
    checkpoints = Checkpoints(workdir, config)
    state = create_state(config, build_mesh(config.mesh))
    for step in steps:
        state = state._replace(step=jnp.int32(step))
        save_state(checkpoints, state, Progress(tokenizer=tokenizer.fingerprint))
    checkpoints.close()


def save_best(checkpoints: Checkpoints, state: TrainState, progress: Progress) -> None:
    checkpoints.save_best(int(state.step), state.params, progress)


def restore_newest_state(
    workdir: Path, config: Config, mesh: jax.sharding.Mesh, *more: Any
) -> Restored | None:
    like = abstract_state(config, mesh)
    return restore_newest(workdir, like.params, like.optimizer_state, *more)


def load_chosen(workdir: Path, config: Config, mesh: jax.sharding.Mesh) -> Loaded:
    return load_parameters(workdir, config, abstract_params(config, mesh))
