"""Where a run begins, or goes on: its state, and what it remembers beside what it now reads."""

from pathlib import Path

import jax
from jax.sharding import Mesh

from flax_transformer.config import Config
from flax_transformer.data.corpus import Corpus
from flax_transformer.data.training_data import TrainingData
from flax_transformer.evaluation.bleu_tokenizer import runs_words_together
from flax_transformer.training.console import Console
from flax_transformer.training.progress import Progress, check_text, measure_of
from flax_transformer.training.restoring import restore_newest
from flax_transformer.training.state import TrainState, count_parameters, create_state


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
    restored = restore_newest(workdir, config, mesh, Console.warn, leave_as_is=leave_as_is)
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
        state, before = restored
        step = int(jax.device_get(state.step))
        progress = check_text(before, step, fingerprint, read, accept_changed_data)
        if progress.data_changes != before.data_changes:
            splits = " and ".join(progress.data_changes[-1]["splits"])
            Console.warn(f"going on after step {step:,} with another text of {splits}")
    measured = progress.for_measure(measure_of(config))
    if restored and restored[1].best_bleu is not None and measured.best_bleu is None:
        Console.warn("BLEU is taken otherwise than before: the next validation is the best")
    return state, measured.with_lengths(data.trained_lengths)
