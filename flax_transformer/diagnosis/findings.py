"""From figures to findings: what is wrong with a run, the worst first."""

import dataclasses
import itertools
from collections.abc import Iterator

from flax_transformer.config import Config
from flax_transformer.diagnosis.figures import Figures
from flax_transformer.diagnosis.finding import SEVERITIES, Finding, Severity
from flax_transformer.diagnosis.layer_findings import (
    SOFTER,
    about_attention,
    about_gradient_size,
    about_gradients,
    about_numbers,
    about_self_attention,
    about_updates,
    how_to_use_the_source,
    source_matters,
)

_DIVERGED = 1.0  # nats above guessing evenly; an untrained model is half a nat above it


def find(config: Config, figures: Figures) -> list[Finding]:
    """Returns all that can be said of `figures`, the most serious first; notes need no action."""
    # What a model cannot do yet is no defect while the learning rate still rises.
    early = figures.step < config.optimizer.warmup_steps
    not_yet: Severity = "note" if early else "serious"
    less: Severity = "note" if early else "warning"
    found = itertools.chain(
        about_numbers(figures),
        about_updates(figures),
        about_loss(figures, not_yet, less),
        about_gradients(figures),
        about_gradient_size(config, figures),
        about_overfitting(figures),
        about_pairs(figures),
        about_bytes(figures),
        about_rate(config, figures),
    )
    if not _diverged(figures):  # of numbers without meaning there is nothing more to say
        found = itertools.chain(
            found,
            about_source(config, figures, not_yet),
            # As long as the source helps, attention may still find its places.
            about_attention(config, figures, less if source_matters(figures) else not_yet),
            about_self_attention(figures, less),
            about_outputs(figures, less),
            about_ends(figures, less),
        )
    advised = (
        dataclasses.replace(each, remedy="") if each.severity == "note" else each for each in found
    )
    return sorted(advised, key=lambda finding: SEVERITIES.index(finding.severity))


def about_loss(figures: Figures, not_yet: Severity, less: Severity) -> Iterator[Finding]:
    """Judges the loss against predictors that see no source."""
    loss, baselines = figures.losses.validation, figures.baselines
    if not figures.step:
        yield Finding(
            "note",
            "nothing is trained yet",
            f"all figures are those of the initial parameters, whose loss of {loss:.2f} should be "
            f"near log(vocabulary), {baselines.uniform:.2f}",
        )
        return
    if _diverged(figures):
        yield Finding(
            "serious",
            f"the loss of {loss:.2f} is above log(vocabulary), {baselines.uniform:.2f}",
            "guessing uniformly would be better: training has diverged",
            f"start again with {SOFTER}",
        )
    elif loss > baselines.unigram:
        yield Finding(
            not_yet,
            f"the loss of {loss:.2f} is above that of word frequencies alone, "
            f"{baselines.unigram:.2f}",
            "the model has not even learned which words are frequent: it has only begun, or the "
            "learning rate keeps it from learning",
            f"after the warm-up: {SOFTER}",
        )
    elif loss > baselines.bigram:
        yield Finding(
            less,
            f"the loss of {loss:.2f} is above that of the previous word alone, "
            f"{baselines.bigram:.2f}",
            "counts of word pairs know more of the target language than the model does",
            f"train longer; where the loss has stopped falling, {SOFTER}",
        )


def _diverged(figures: Figures) -> bool:
    return figures.step > 0 and figures.losses.validation > figures.baselines.uniform + _DIVERGED


def about_source(config: Config, figures: Figures, not_yet: Severity) -> Iterator[Finding]:
    """Judges whether the source makes a difference."""
    losses = figures.losses
    if not source_matters(figures):
        yield Finding(
            not_yet,
            f"the loss is the same with the right source ({losses.validation:.2f}) as with one of "
            f"mixed-up words ({losses.shuffled:.2f})",
            "the decoder ignores the source, and is a language model of the target",
            how_to_use_the_source(config),
        )


def about_outputs(figures: Figures, not_yet: Severity) -> Iterator[Finding]:
    """Judges what the greedy translations look like."""
    outputs = figures.outputs
    if outputs.identical > 0.1:
        yield Finding(
            not_yet,
            f"{outputs.identical:.0%} of the translations are those of a different source too",
            "the decoder ignores the source, or has learned only a few sentences",
            "train longer; the findings on loss and attention say more",
        )
    if outputs.repeated > outputs.repeated_in_references + 0.1:
        yield Finding(
            not_yet,
            f"{outputs.repeated:.0%} of the translated tokens repeat what is right before them, "
            f"against {outputs.repeated_in_references:.0%} in the references",
            'the decoder loops ("the the the"): it does not know what it has said already',
            "train longer; --decoding.coverage-penalty 0.2 hides it at search time, and "
            "--model.coverage (recurrent, concat attention) trains against it",
        )


def about_ends(figures: Figures, not_yet: Severity) -> Iterator[Finding]:
    """Judges where the greedy translations end."""
    outputs = figures.outputs
    if outputs.empty > 0.05:
        yield Finding(
            not_yet,
            f"{outputs.empty:.0%} of the translations are empty",
            "the end symbol is the most probable first token: short or empty targets in the data, "
            "or a model that has hardly begun",
            "check whether the training targets have empty lines; a lower --batch.max-length-ratio "
            "drops pairs of which one side is much shorter",
        )
    if outputs.too_long > 0.05:
        yield Finding(
            not_yet,
            f"{outputs.too_long:.0%} of the translations are cut by the limit of length",
            "the model does not say when it has ended",
            "train longer; for a language that needs more tokens than its source, a higher "
            "--decoding.extra-length",
        )


def about_overfitting(figures: Figures) -> Iterator[Finding]:
    """Compares the training loss with the validation loss."""
    losses = figures.losses
    if losses.validation > 1.3 * losses.training + 0.2:
        yield Finding(
            "warning",
            f"the loss is {losses.training:.2f} on training text and {losses.validation:.2f} on "
            "validation text",
            "the model learns its sentences by heart (overfitting), or both texts differ in kind",
            "a higher --model.dropout, a smaller model, --tokenizer.dropout 0.1, more data, or "
            "--training.patience to stop in time",
        )


def about_pairs(figures: Figures) -> Iterator[Finding]:
    """Judges the training data."""
    pairs = figures.pairs
    if pairs.copies > 0.05:
        yield Finding(
            "warning",
            f"in {pairs.copies:.0%} of the training pairs the target is the source",
            "the model learns to copy in place of translating (Ott et al. 2018)",
            "take these pairs out of the training files",
        )
    if not 1 / 3 < pairs.length_ratio < 3:
        yield Finding(
            "warning",
            f"there are {pairs.length_ratio:.2g} target tokens per source token",
            "sides so different in length seldom say the same",
            "check that line n of both files is a pair; a lower --batch.max-length-ratio",
        )
    fill = min(pairs.source_fill, pairs.target_fill)
    if fill < 0.6:
        yield Finding(
            "note",
            f"only {fill:.0%} of the slots of one side hold a token",
            "the others cost time for nothing: choose other --batch.source-length and "
            "--batch.target-length",
        )


def about_bytes(figures: Figures) -> Iterator[Finding]:
    """Finds text that the vocabulary does not fit."""
    sides = {"source": figures.pairs.source_bytes, "target": figures.pairs.target_bytes}
    for side, share in sides.items():
        if share > 0.05:
            yield Finding(
                "warning",
                f"{share:.0%} of the {side} tokens are single bytes",
                "the vocabulary does not know these characters: it is too small for the script, or "
                "was learned from other text",
                "a larger --tokenizer.vocabulary-size, in a new work directory without the old "
                "tokenizer.model",
            )


def about_rate(config: Config, figures: Figures) -> Iterator[Finding]:
    """Says where the run stands in the schedule of the learning rate."""
    warmup, steps = config.optimizer.warmup_steps, config.training.steps
    if warmup > steps:
        yield Finding(
            "warning",
            f"the warm-up of {warmup:,} steps is longer than the run of {steps:,}",
            f"the learning rate never reaches its peak of {figures.rate.peak:.2g}",
            "fewer --optimizer.warmup-steps, or more --training.steps",
        )
    elif figures.step < warmup:
        yield Finding(
            "note",
            f"the learning rate still rises: step {figures.step:,} of {warmup:,} of the warm-up",
            "what the model cannot do yet is no sign of a defect; diagnose again later",
        )
