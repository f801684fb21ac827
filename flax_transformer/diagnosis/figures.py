"""Everything that a diagnosis measures of a run, taken from where it stands."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.decoding.lengths import longest_target
from flax_transformer.diagnosis.attention_statistics import (
    AttentionStatistics,
    measure_attention,
)
from flax_transformer.diagnosis.baselines import Baselines, baselines
from flax_transformer.diagnosis.norms import ModuleNorms, Norms, by_module, norms
from flax_transformer.diagnosis.pair_figures import PairFigures, pair_figures
from flax_transformer.diagnosis.repetition import OutputFigures, output_figures
from flax_transformer.models import build_model
from flax_transformer.models.initialization import parameter_axes
from flax_transformer.parallel.sharding import on_mesh, replicated
from flax_transformer.training.optimizer import build_optimizer, learning_rate_schedule
from flax_transformer.training.run import Run
from flax_transformer.training.state import TrainState
from flax_transformer.training.step import mean_gradient
from flax_transformer.training.validation import Validation

_BATCHES = 4  # of training and of validation, for the losses
_SENTENCES = 100  # of validation, translated


@dataclasses.dataclass(frozen=True)
class Losses:
    """Negative log likelihood of the true tokens, in nats per token, without dropout."""

    training: float
    """Of the last batches that the run was trained on; of its first where there are none."""
    validation: float
    shuffled: float
    """Of the same validation targets, with the words of all sources mixed up."""


@dataclasses.dataclass(frozen=True)
class Rate:
    """The learning rate of the next step, and the highest of the run."""

    now: float
    peak: float


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a diagnosis measures of a run after `step` steps."""

    step: int
    modules: list[ModuleNorms]
    """Of the next step, in the order of the parameters."""
    attention: dict[str, AttentionStatistics]
    """numpy (l,h), by name."""
    losses: Losses
    baselines: Baselines
    outputs: OutputFigures
    rate: Rate
    pairs: PairFigures


class Examination(NamedTuple):
    """What one training batch shows."""

    norms: Norms
    attention: dict[str, AttentionStatistics]


def examine(config: Config, state: TrainState, batch: Batch, key: jax.Array) -> Examination:
    """Measures the gradient and update that `train_step` would make, and where attention looks.

    Nothing is changed.
    """
    gradients, _ = mean_gradient(config, state, batch, key)
    updates, _ = build_optimizer(config).update(gradients, state.optimizer_state, state.params)
    axes = parameter_axes(config)
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    return Examination(
        Norms(*(norms(tree, axes) for tree in (gradients, state.params, updates))),
        measure_attention(model, state.params, batch),
    )


def measure(run: Run) -> Figures:
    """Measures `run` where it stands, and leaves it as it is."""
    stages = {
        "gradients and attention": _examine_next_batch,
        "losses": _losses,
        "outputs": _outputs,
        "baselines": _baselines,
        "pairs": lambda run: pair_figures(run.data.train, run.data.tokenizer.byte_ids),
        "rate": _rate,
    }
    found: dict[str, Any] = {}
    # tqdm draws nothing (disable=None) where stderr is a file.
    with tqdm(stages.items(), desc="Diagnosing", leave=False, disable=None) as bar:
        for name, stage in bar:
            bar.set_postfix_str(name)
            found[name] = stage(run)
    modules, attention = found.pop("gradients and attention")
    return Figures(step=run.step, modules=modules, attention=attention, **found)


def _examine_next_batch(run: Run) -> tuple[list[ModuleNorms], dict]:
    program = jax.jit(
        functools.partial(on_mesh(run.mesh, examine), run.config),
        out_shardings=replicated(run.mesh),
    )
    batch = run.place(run.data.train.batch(run.step, run.own_rows))
    found = jax.device_get(program(run.state, batch, run.key))
    return by_module(found.norms, run.state.params), found.attention


def _losses(run: Run) -> Losses:
    seen = range(max(0, run.step - _BATCHES), run.step) or range(_BATCHES)
    validation = list(itertools.islice(run.data.validation.once(run.own_rows), _BATCHES))

    validator = Validation(run)

    def mean(batches: Iterable[Batch]) -> float:
        return math.log(validator.mean_loss(run.state.params, batches)["perplexity"])

    return Losses(
        training=mean(run.data.train.batch(step, run.own_rows) for step in seen),
        validation=mean(validation),
        shuffled=mean(shuffle_sources(validation)),
    )


def shuffle_sources(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yields `batches` whose source tokens have changed places with one another, at random.

    Nothing is left of the sources but their length.
    """
    random = np.random.default_rng(0)
    for batch in batches:
        ids = batch.source_ids.copy()
        ids[batch.source_segments > 0] = random.permutation(ids[batch.source_segments > 0])
        yield batch._replace(source_ids=ids)


def _outputs(run: Run) -> OutputFigures:
    pairs, outputs = Validation(run).translate(run.state.params, _SENTENCES)
    tokenizer = run.data.tokenizer
    encode, encode_target = tokenizer.encode, tokenizer.target.encode
    sources = [source for source, _ in pairs]
    return output_figures(
        sources,
        outputs,
        [longest_target(run.config, len(ids) + 1) for ids in encode(sources)],
        encode_target([output.text for output in outputs]),
        encode_target([reference for _, reference in pairs]),
    )


def _baselines(run: Run) -> Baselines:
    return baselines(
        run.data.train.pairs.target.values,
        run.data.validation.pairs.target.values,
        run.config.tokenizer.vocabulary_size,
        run.config.training.label_smoothing,
    )


def _rate(run: Run) -> Rate:
    schedule = learning_rate_schedule(run.config)
    now, peak = (
        float(jax.device_get(schedule(count)))
        for count in (run.step, run.config.optimizer.warmup_steps - 1)
    )
    return Rate(now=now, peak=peak)
