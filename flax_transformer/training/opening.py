"""Where a run begins, or goes on: its state, and what it remembers beside what it now reads."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from flax_transformer.checkpoints.progress import Progress, measure_of
from flax_transformer.checkpoints.restoring import restore_newest
from flax_transformer.config import Config
from flax_transformer.data.corpus import Corpus
from flax_transformer.data.training_data import TrainingData
from flax_transformer.errors import ConfigError, require
from flax_transformer.evaluation.bleu_tokenizer import runs_words_together
from flax_transformer.parallel.console import Console
from flax_transformer.training.state import (
    TrainState,
    abstract_state,
    count_parameters,
    create_state,
)


def warn_of_words_run_together(corpus: Corpus, config: Config) -> None:
    """Warns where each sentence would be a single word to BLEU, which then is 0."""
    references = [target for _, target in corpus.split(corpus.validation)[:100]]
    if config.training.bleu_tokenizer == "13a" and runs_words_together(references):
        Console.warn(
            "the validation text has no spaces between its words, so BLEU would take sentences "
            "for words: stop, and choose --training.bleu-tokenizer zh, ja-mecab or char"
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
    """A new state, or that of the newest sound checkpoint.

    Raises `ConfigError` where vocabulary or text are not what the run has been trained with,
    unless `accept_changed_data` allows the text.
    """
    like = abstract_state(config, mesh)
    restored = restore_newest(
        workdir, like.params, like.optimizer_state, Console.warn, leave_as_is=leave_as_is
    )
    fingerprint = data.tokenizer.fingerprint
    read = {split: corpus.fingerprint(split) for split in (corpus.train, corpus.validation)}
    if restored is None:
        state = create_state(config, mesh)
        Console.say(
            f"{count_parameters(state.params):,} parameters on {mesh.size} device(s), "
            f"{data.train.steps_per_epoch:,.1f} steps an epoch"
        )
        progress = Progress(tokenizer=fingerprint, corpus=read, validated_step=0)
    else:
        step, before = restored.step, restored.progress
        counter = _on_mesh(step, like.step.sharding)
        state = TrainState(counter, restored.params, restored.optimizer_state)
        progress = check_text(before, step, fingerprint, read, accept_changed_data)
        if progress.data_changes != before.data_changes:
            splits = " and ".join(progress.data_changes[-1]["splits"])
            Console.warn(f"going on after step {step:,} with another text of {splits}")
    measured = progress.for_measure(measure_of(config))
    if restored and restored.progress.best_bleu is not None and measured.best_bleu is None:
        Console.warn("BLEU is taken otherwise than before: the next validation is the best")
    return state, measured.with_lengths(data.trained_lengths)


def check_text(
    progress: Progress, step: int, tokenizer: str, corpus: Mapping[str, str], accept_changes: bool
) -> Progress:
    """`progress` for a run that goes on after `step` with the vocabulary and the text of these
    fingerprints. `accept_changes`: the text may be another one, which is recorded.

    Raises `ConfigError` where either is not the one that the run has been trained with.
    """
    require(
        progress.tokenizer == tokenizer,
        "tokenizer.model is not the vocabulary that the checkpoints were trained with: put that "
        "one back",
    )
    before = progress.corpus or corpus  # what an earlier version wrote does not say
    changed = [split for split in corpus if before.get(split) != corpus[split]]
    changes = progress.data_changes
    if changed:
        if not accept_changes:
            raise ConfigError(
                f"the text of {' and '.join(changed)} is not what the run has been trained with: "
                "put that back, name another folder with --workdir, or go on with the new text by "
                "--accept-changed-data"
            )
        changes = (*changes, {"step": step, "splits": changed})
    if Corpus.validation in changed:
        progress = progress.without_best()
    return dataclasses.replace(progress, corpus=dict(corpus), data_changes=changes)


def _on_mesh(step: int, sharding: jax.sharding.Sharding) -> jax.Array:
    """The counter of optimizer steps, on every device."""
    return jax.make_array_from_callback((), sharding, lambda _: np.asarray(step, np.int32))
