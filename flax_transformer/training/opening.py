"""Where a run begins or goes on: its state, restored or created."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from flax_transformer.checkpoints.progress import Progress, measure_of
from flax_transformer.checkpoints.restoring import restore_newest
from flax_transformer.config import Config
from flax_transformer.data.corpus import Corpus
from flax_transformer.data.training_data import TrainingData
from flax_transformer.parallel.console import Console
from flax_transformer.training.same_text import check_text, warn_of_changes
from flax_transformer.training.starting_point import load_start
from flax_transformer.training.state import (
    TrainState,
    abstract_state,
    count_parameters,
    create_state,
)


def open_state(
    workdir: Path,
    config: Config,
    mesh: Mesh,
    corpus: Corpus,
    data: TrainingData,
    *,
    accept_changed_data: bool,
    leave_as_is: bool,
) -> tuple[TrainState, Progress]:
    """Restores the newest sound checkpoint, or creates a new state where there is none.

    leave_as_is: damaged checkpoints are not set aside.

    Raises `CheckpointError` where all checkpoints are damaged, and `UserError` where vocabulary
    or text are not what the run has been trained with; `accept_changed_data` allows another text.
    """
    like = abstract_state(config, mesh)
    restored = restore_newest(
        workdir, like.params, like.optimizer_state, Console.warn, leave_as_is=leave_as_is
    )
    vocabulary = data.tokenizer.fingerprint
    text = {split: corpus.fingerprint(split) for split in (corpus.train, corpus.validation)}
    if restored is None:
        state = create_state(config, mesh)
        progress = Progress(tokenizer=vocabulary, corpus=text, validated_step=0)
        if start := load_start(config, mesh, state.params, data.tokenizer):
            state = state._replace(params=start.params)
            progress = dataclasses.replace(progress, start=start.origin)
            Console.say(f"starting from the {start.description}")
        Console.say(
            f"{count_parameters(state.params):,} parameters on {mesh.size} device(s), "
            f"{data.train.steps_per_epoch:,.1f} steps per epoch"
        )
    else:
        counter = _replicate(restored.step, like.step.sharding)
        state = TrainState(counter, restored.params, restored.optimizer_state)
        progress = check_text(
            restored.progress, restored.step, vocabulary, text, accept_changed_data
        )
    progress = progress.for_measure(measure_of(config)).with_lengths(data.trained_lengths)
    if restored is not None:
        warn_of_changes(restored, progress)
    return state, progress


def _replicate(step: int, sharding: jax.sharding.Sharding) -> jax.Array:
    """Puts the counter of optimizer steps on every device."""
    return jax.make_array_from_callback((), sharding, lambda _: np.asarray(step, np.int32))
