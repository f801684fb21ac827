"""The settings of a run in its work directory: once something depends on one, it stays."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import jax

from flax_transformer.checkpoints.files import list_steps
from flax_transformer.config import Config, TextFiles, TransformerConfig
from flax_transformer.config.json import differing_fields, load_config, save_config
from flax_transformer.errors import UserError
from flax_transformer.evaluation.bleu_tokenizer import choose_tokenizer
from flax_transformer.ops.compute_dtype import settle_compute_dtype, with_compute_dtype
from flax_transformer.parallel.hosts import is_first_process
from flax_transformer.training.starting_point import take_vocabulary
from flax_transformer.workdir import (
    BEST,
    CHECKPOINTS,
    CONFIG_FILE,
    HEADS_FILE,
    TOKENIZER_FILE,
)

_NEVER_BIND = (
    "batch.read_ahead", "data.directory", "data.test", "decoding", "mesh", "model.kernels",
    "training.bleu_tokenizer", "training.checkpoint_every", "training.checkpoint_minutes",
    "training.deterministic", "training.evaluate_every", "training.keep_checkpoints",
    "training.log_every", "training.patience", "training.validation_sentences",
)  # fmt: skip
"""Settings and sections that change no parameter: where the text lies; what is tested, shown and
kept, and when; the devices, the kernels, and how exactly they repeat themselves. Whether another
data.directory holds the same text is for `same_text.check_text` to say."""

_OF_THE_VOCABULARY = (
    "data", "tokenizer.added_pieces", "tokenizer.character_coverage", "tokenizer.normalization",
    "tokenizer.training_sentences", "tokenizer.vocabulary_size", "training.seed",
    "training.start_from",
)  # fmt: skip
_NOT_OF_THE_VOCABULARY = ("data.concatenate", "data.placeholders", "data.test", "data.validation")


def settle(
    workdir: Path, config: Config, device: jax.Device, note: Callable[[str], None]
) -> Config:
    """Replaces "auto" and None in `config` by what they stand for, for `open_workdir` to keep.

    That is what the run in `workdir` has had, or what the first process has chosen: otherwise BLEUs
    could not be compared, and a run that goes on elsewhere would not be the same run. For a new run
    it is what the target language and `device` ask for. `note` is told what is amiss.
    """
    path = workdir / CONFIG_FILE
    before = None
    if (_has_checkpoints(workdir) or not is_first_process()) and os.path.exists(path):
        before = load_config(path)
        config = _as_before(config, before)
    config = take_vocabulary(config, before)
    chosen = choose_tokenizer(config.training.bleu_tokenizer, config.data, note)
    training = dataclasses.replace(config.training, bleu_tokenizer=chosen)
    return settle_compute_dtype(dataclasses.replace(config, training=training), device)


def _as_before(config: Config, before: Config) -> Config:
    """Takes from `before` what `config` leaves open by "auto" or None."""
    if config.training.start_from is None:
        start = before.training.start_from
        training = dataclasses.replace(config.training, start_from=start)
        config = dataclasses.replace(config, training=training)
    if config.training.bleu_tokenizer == "auto":
        tokenizer = before.training.bleu_tokenizer
        training = dataclasses.replace(config.training, bleu_tokenizer=tokenizer)
        config = dataclasses.replace(config, training=training)
    if config.model.compute_dtype == "auto" and before.model.compute_dtype != "auto":
        config = with_compute_dtype(config, before.model.compute_dtype)
    if isinstance(config.model, TransformerConfig) and isinstance(before.model, TransformerConfig):
        layers = config.model.unroll_layers or before.model.unroll_layers
        model = dataclasses.replace(config.model, unroll_layers=layers)
        config = dataclasses.replace(config, model=model)
    return config


def open_workdir(workdir: Path, config: Config, *, only_look: bool = False) -> None:
    """Creates `workdir` for a run with `config`, or checks that its run may go on with `config`.

    Settings of the vocabulary bind once it has been learned, and settings that parameters depend on
    once there is a checkpoint. All others are replaced, but not with `only_look`. Between the
    processes of a run no setting may differ. Raises `UserError`, which names those that do.
    """
    path = workdir / CONFIG_FILE
    if os.path.exists(workdir / HEADS_FILE):
        raise UserError(
            f"{workdir} holds a pruned model, without an optimizer's state: train it further in "
            f"another folder, with --start-from {workdir}"
        )
    if is_first_process():
        if os.path.exists(path):
            _check_same_run(workdir, load_config(path), config)
            if only_look:
                return
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            save_config(config, path)
        except OSError as error:
            raise UserError(f"--workdir {workdir} cannot be written: {error.strerror}") from None
    elif not os.path.exists(path):
        raise UserError(
            f"--workdir {workdir} is not the folder in which the first process has begun: name one "
            "that every host sees under the same name, such as on a network file system"
        )
    elif differences := differing_fields(load_config(path), config):
        raise UserError(f"the first process has other settings:\n{_listed(differences.values())}")


def _check_same_run(workdir: Path, before: Config, config: Config) -> None:
    if _has_checkpoints(workdir):
        newest = max(list_steps(workdir / CHECKPOINTS), default=0)
        if differences := _binding_on_parameters(before, config, newest):
            raise UserError(
                f"{workdir} holds a run with other settings:\n{_listed(differences)}\n"
                "Restore them to go on with it, or name another folder with --workdir."
            )
        return
    vocabulary = workdir / TOKENIZER_FILE
    if vocabulary.exists() and (differences := _binding_on_vocabulary(before, config)):
        raise UserError(
            f"{vocabulary} was learned with other settings:\n{_listed(differences)}\n"
            "Restore them, or delete that file to have a vocabulary learned anew."
        )


def _has_checkpoints(workdir: Path) -> bool:
    return any(list_steps(workdir / folder) for folder in (CHECKPOINTS, BEST))


def _binding_on_parameters(before: Config, config: Config, newest: int) -> list[str]:
    """Lists the differences that forbid a run to go on after step `newest`, its last checkpoint."""
    lines = []
    for name, line in differing_fields(before, config).items():
        if name == "training.steps":
            # Steps enter the rate by the end that it falls to, and nothing else.
            cooldown = config.optimizer.cooldown_steps
            begin = min(before.training.steps, config.training.steps) - cooldown
            if not cooldown or newest <= begin:
                continue
            line += (
                f" (with optimizer.cooldown_steps {cooldown} the learning rate falls from step "
                f"{begin} on, and the run has come to {newest})"
            )
        if not _among(name, _NEVER_BIND):
            lines.append(line)
    return lines


def _binding_on_vocabulary(before: Config, config: Config) -> list[str]:
    """Lists the differences in what a vocabulary was learned from, and how."""
    return [
        line
        for name, line in differing_fields(before, config).items()
        if _among(name, _OF_THE_VOCABULARY)
        and not _among(name, _NOT_OF_THE_VOCABULARY)
        and not (name == "data.train" and _text_and_tags(before) == _text_and_tags(config))
    ]


def _text_and_tags(config: Config) -> list[tuple[str, str | None]]:
    """Lists the training files, not their weights: a vocabulary is learned from each pair once."""
    assert isinstance(config.data, TextFiles)
    return [(files.name, files.tag) for files in config.data.training_files]


def _among(name: str, settings: Iterable[str]) -> bool:
    """Whether a setting is one of `settings`, or of a section among them."""
    return any(name == other or name.startswith(f"{other}.") for other in settings)


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
