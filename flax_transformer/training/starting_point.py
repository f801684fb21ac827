"""Fine-tuning: a run that starts from the parameters and the vocabulary of another run."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.checkpoints.loading import Loaded, load_parameters
from flax_transformer.config import Config, TextFiles
from flax_transformer.config.json import differing_fields, load_config
from flax_transformer.config.shipped import model_folder
from flax_transformer.data.corpus import Corpus
from flax_transformer.data.training_data import training_sentences
from flax_transformer.errors import UserError, require
from flax_transformer.files.whole_file import write_whole
from flax_transformer.models.initialization import abstract_params, parameter_axes
from flax_transformer.parallel.console import Console
from flax_transformer.text.added_pieces import add_pieces, learn_pieces
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.text.tokenizer_training import sample_sentences
from flax_transformer.text.vocabulary_file import load_tokenizer
from flax_transformer.workdir import CONFIG_FILE, TOKENIZER_FILE

_OWN = ("added_pieces", "dropout", "samples")
"""Settings of the tokenizer that are not taken from the other run."""


def take_vocabulary(config: Config, before: Config | None) -> Config:
    """Returns `config` with the settings of the vocabulary that the run starts with.

    before  the settings of this run, where it has begun: the other run need no longer be there

    Raises `UserError` where the other run cannot be read, or pieces are to be added to none.
    """
    added = config.tokenizer.added_pieces
    if config.training.start_from is None:
        require(
            added == 0,
            f"tokenizer.added_pieces is {added}, but there is no other run whose vocabulary they "
            "are added to: name it by --start-from, or choose --tokenizer.vocabulary-size",
        )
        return config
    if before is not None:
        tokenizer = before.tokenizer
    else:
        start = _start_directory(config)
        tokenizer = load_config(start / CONFIG_FILE).tokenizer
        vocabulary = load_tokenizer(start / TOKENIZER_FILE, tokenizer.vocabulary_size)
        size = tokenizer.vocabulary_size + added + len(_missing_tags(config, vocabulary))
        tokenizer = dataclasses.replace(tokenizer, vocabulary_size=size)
    kept = {name: getattr(config.tokenizer, name) for name in _OWN}
    return dataclasses.replace(config, tokenizer=dataclasses.replace(tokenizer, **kept))


def copy_vocabulary(config: Config, workdir: Path, corpus: Corpus) -> None:
    """Writes the vocabulary of the other run to `workdir`, unless there is one already.

    It gets `tokenizer.added_pieces`, learned from the training text, and the tags that it lacks.
    Raises `UserError` where the text has not enough for so many pieces.
    """
    path = workdir / TOKENIZER_FILE
    if config.training.start_from is None or path.exists():
        return
    vocabulary = load_tokenizer(_start_directory(config) / TOKENIZER_FILE)
    tags = _missing_tags(config, vocabulary)
    pieces = _learn_pieces(config, vocabulary, tags, corpus)
    write_whole(path, add_pieces(vocabulary, pieces, tags))


def _learn_pieces(
    config: Config, vocabulary: Tokenizer, tags: Sequence[str], corpus: Corpus
) -> list[str]:
    settings = config.tokenizer
    count = settings.added_pieces
    if not count:
        return []
    sentences = sample_sentences(training_sentences(corpus), settings, config.training.seed)
    learned = learn_pieces(vocabulary, sentences, count, tags)
    if (most := len(learned.pieces)) < count:
        raise UserError(
            f"tokenizer.added_pieces is {count}, but the training text has only enough for "
            f"{most}: use at most {most}, or more text"
        )
    share = learned.tokens_after / learned.tokens_before
    Console.say(f"{count:,} pieces added to the vocabulary: {1 - share:.1%} fewer tokens")
    return learned.pieces


class Start(NamedTuple):
    """The parameters to start with, and where they come from."""

    params: Any
    origin: dict[str, Any]
    """What the run remembers of it."""
    description: str
    """For a person, such as "mean of the checkpoints of steps 40 and 50 of runs/base"."""


def load_start(
    config: Config, mesh: jax.sharding.Mesh, fresh: Any, vocabulary: Tokenizer
) -> Start | None:
    """Returns what the run starts with, laid out like `fresh`; None where it starts from nothing.

    fresh:      the parameters before training
    vocabulary: of this run

    The row of a piece that the other run lacks is the mean of the rows of those that spell it
    there. That of a tag stays as in `fresh`. Raises `UserError` where a shape does not fit.
    """
    if config.training.start_from is None:
        return None
    start = _start_directory(config)
    theirs = load_config(start / CONFIG_FILE)
    _check_shapes(start, theirs, config, mesh)
    decoding = dataclasses.replace(theirs.decoding, checkpoint=config.training.start_checkpoint)
    theirs = dataclasses.replace(theirs, decoding=decoding)
    loaded = load_parameters(start, theirs, abstract_params(theirs, mesh))
    before = load_tokenizer(start / TOKENIZER_FILE)
    if loaded.progress.tokenizer != before.fingerprint:
        raise UserError(
            f"{start / TOKENIZER_FILE} is not the vocabulary that its checkpoints were trained "
            "with: put that one back"
        )
    spelled = _spellings(vocabulary, before)
    params = jax.tree.map(partial(_with_rows_of, spelled=spelled), fresh, loaded.params)
    origin = {
        "directory": config.training.start_from,
        "checkpoint": loaded.choice,
        "steps": loaded.steps,
        "trained_on": loaded.progress.corpus,
    }
    return Start(params, origin, f"{_describe(loaded)} of {start}")


def _describe(loaded: Loaded) -> str:
    *others, last = (f"{step:,}" for step in loaded.steps)
    if not others:
        return f"checkpoint of step {last}"
    return f"mean of the checkpoints of steps {', '.join(others)} and {last}"


def _spellings(vocabulary: Tokenizer, before: Tokenizer) -> list[list[int]]:
    """Returns the ids in `before` of what spells each piece that it lacks; none of a tag."""
    added = vocabulary.pieces(range(before.vocabulary_size, vocabulary.vocabulary_size))
    return [
        before.ids_of_piece(piece) if piece in vocabulary.text_pieces else [] for piece in added
    ]


def _with_rows_of(
    fresh: jax.Array, start: jax.Array, spelled: Sequence[Sequence[int]]
) -> jax.Array:
    """`start`, followed by the rows that it lacks, laid out like `fresh`.

    spelled: for each of these rows the rows of `start` of which it is the mean, or none where it is
             that of `fresh`
    """
    if start.shape == fresh.shape:
        return jax.device_put(start, fresh.sharding)
    counts = np.array([[len(ids)] for ids in spelled])
    ids = np.zeros((len(spelled), counts.max()), np.int32)
    for row, own in zip(ids, spelled, strict=True):
        row[: len(own)] = own
    is_there = np.arange(ids.shape[1]) < counts

    def join(fresh: jax.Array, start: jax.Array) -> jax.Array:
        sums = jnp.where(is_there[..., None], start[ids], 0).sum(1)
        added = jnp.where(counts > 0, sums / np.maximum(counts, 1), fresh[len(start) :])
        return jnp.concatenate([start, added])

    return jax.jit(join, out_shardings=fresh.sharding)(fresh, start)


def _check_shapes(start: Path, theirs: Config, ours: Config, mesh: jax.sharding.Mesh) -> None:
    """Raises `UserError` for parameters that one model has and the other lacks, or that differ in
    an axis other than the vocabulary's."""
    shapes = [_shapes(config, mesh) for config in (theirs, ours)]
    for name in sorted({*shapes[0], *shapes[1]}):
        there, here = (one.get(name, "missing") for one in shapes)
        if there != here:
            differing = "\n".join(
                f"  {line}"
                for line in differing_fields(theirs, ours).values()
                if line.startswith("model.")
            )
            raise UserError(
                f"--start-from {start}: {name} is {there} there and {here} here. Take the settings "
                f"of the model from there:\n{differing}"
            )


def _shapes(config: Config, mesh: jax.sharding.Mesh) -> dict[str, str]:
    """Of every parameter the axes and sizes as text, that of the vocabulary without its size."""
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(config, mesh))
    axes = jax.tree.leaves(parameter_axes(config), is_leaf=lambda x: isinstance(x, tuple))
    return {
        ".".join(key.key for key in path): "("
        + ", ".join(
            letter if letter == "v" else f"{letter} {size}"
            for letter, size in zip(names, leaf.shape, strict=True)
        )
        + ")"
        for (path, leaf), names in zip(leaves, axes, strict=True)
    }


def _missing_tags(config: Config, vocabulary: Tokenizer) -> list[str]:
    """The tags of the training files that `vocabulary` has no symbol for."""
    if not isinstance(config.data, TextFiles):
        return []
    tags = {files.tag for files in config.data.training_files if files.tag is not None}
    return sorted(tag for tag in tags if not vocabulary.has_tag(tag))


def _start_directory(config: Config) -> Path:
    start = model_folder(str(config.training.start_from))
    if not (start / CONFIG_FILE).exists():
        raise UserError(
            f"--start-from {start} is not the work directory of a run: it holds no {CONFIG_FILE}"
        )
    return start
