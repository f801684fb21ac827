"""What the layers show: gradients, updates and attention, and what they mean."""

from collections.abc import Iterator, Sequence

import numpy as np

from flax_transformer.config import Config, RecurrentConfig
from flax_transformer.diagnosis.attention_statistics import CROSS
from flax_transformer.diagnosis.figures import Figures
from flax_transformer.diagnosis.finding import Finding, Severity
from flax_transformer.diagnosis.norms import together

UNIFORM = 0.95
"""Entropy, as a share of the highest, above which attention looks at everything alike."""

_COLLAPSED = 0.05  # entropy below which it looks at one position,
_SAME_PLACE = 0.9  # and weight at one place above which that is the same one for every query

_GAIN_OF_SOURCE = 0.02  # of the loss, that the right source must save

_VANISHING = 1e-4  # of the median gradient
_EXPLODING = 10.0  # global norm; with a mean loss over tokens it is of the order of 1
_FAST = 0.1  # update over parameters
_SLOW = 1e-6

SOFTER = "a lower --optimizer.learning-rate-scale, or more --optimizer.warmup-steps"


def about_numbers(figures: Figures) -> Iterator[Finding]:
    """Finds NaN and infinity, and names where they are."""
    broken = [name for module in figures.modules for name in module.not_finite]
    if broken:
        yield Finding(
            "serious",
            f"NaN or infinite numbers in {_listed(broken)}",
            "every update spreads them to all parameters, so that this run cannot learn any more",
            f"go on from an earlier checkpoint or start again, with {SOFTER}, or with "
            "--optimizer.clip-norm 1.0; where that changes nothing, --model.compute-dtype float32",
        )


def about_gradients(figures: Figures) -> Iterator[Finding]:
    """Finds gradients that do not arrive."""
    modules = [module for module in figures.modules if not module.not_finite]
    without = [name for module in modules for name in module.without_gradient]
    if without:
        yield Finding(
            "serious",
            f"the gradient of {_listed(without)} is exactly zero",
            "nothing that these parameters do reaches the loss, so they never change: a layer that "
            "is switched off, weights that are all zero, units that are never active, or attention "
            "at an entropy of 0%, whose softmax is flat",
            "start again with another --training.seed, and with "
            f"{SOFTER}; where the code was changed, look there",
        )
    typical = float(np.median([module.typical_gradient for module in modules] or [0.0]))
    small = [m.name for m in modules if 0 < m.typical_gradient < _VANISHING * typical]
    if small:
        yield Finding(
            "warning",
            f"the gradient of {_listed(small)} is less than a ten-thousandth of the others'",
            "the gradient vanishes on its way there, and these layers hardly learn",
            "--model.norm pre (a Transformer), fewer layers, or more --optimizer.warmup-steps",
        )


def about_gradient_size(config: Config, figures: Figures) -> Iterator[Finding]:
    """Finds gradients that are far too large."""
    modules = [module for module in figures.modules if not module.not_finite]
    norm = together(modules).gradient
    if norm > _EXPLODING:
        largest = max(modules, key=lambda module: module.gradient)
        clip = config.optimizer.clip_norm
        yield Finding(
            "warning",
            f"the gradient's norm is {norm:.3g}, most of it in {largest.name}",
            "a norm of about 1 is usual; so large a gradient makes single steps that undo many "
            "others" + (f", though it is cut to {clip:g}" if clip else ""),
            SOFTER if clip else f"--optimizer.clip-norm 1.0, or {SOFTER}",
        )


def about_updates(figures: Figures) -> Iterator[Finding]:
    """Finds steps that are too long or too short for the parameters."""
    ratio = together(module for module in figures.modules if not module.not_finite).ratio
    if ratio > _FAST:
        yield Finding(
            "serious",
            f"one update changes the parameters by {ratio:.1%}",
            "about 0.1% is usual, 1% while the rate is highest: such steps throw away what was "
            "learned before",
            f"{SOFTER}; --optimizer.clip-norm does not help, since Adam divides by the gradient",
        )
    elif ratio < _SLOW and figures.rate.now > 0.1 * figures.rate.peak:
        yield Finding(
            "warning",
            f"one update changes the parameters by a share of {ratio:.1g} only",
            "about 1e-3 is usual: learning will take very long",
            "a higher --optimizer.learning-rate-scale, or fewer --optimizer.warmup-steps",
        )


def about_attention(config: Config, figures: Figures, not_yet: Severity) -> Iterator[Finding]:
    """Finds attention to the source that looks everywhere, or always at the same place.

    not_yet: how serious that is at this point of the run.
    """
    if CROSS not in figures.attention:
        yield Finding(
            "note",
            "this model has no attention (model.attention is none)",
            "all that the decoder knows of the source goes through its first state, which long "
            "sentences do not fit in; --model.attention general has no such limit",
        )
        return
    cross = figures.attention[CROSS]
    at_one_place = np.maximum(cross.first, cross.last)
    remedy = how_to_use_the_source(config)
    if (cross.entropy > UNIFORM).all():
        yield Finding(
            not_yet,
            f"cross-attention is uniform in every head: its entropy is {cross.entropy.min():.0%} "
            "of the highest or more",
            "the decoder ignores the source, or nearly: at every position it gets the same mean of "
            "all words",
            remedy,
        )
    if ((cross.entropy < _COLLAPSED) & (at_one_place > _SAME_PLACE)).all():
        place = "first" if cross.first.mean() > cross.last.mean() else "last"
        yield Finding(
            not_yet,
            f"cross-attention has collapsed: every head looks at the {place} source token only",
            "the decoder ignores the other words of the source",
            remedy,
        )


def about_self_attention(figures: Figures, not_yet: Severity) -> Iterator[Finding]:
    """Finds layers of which no head blends what it sees.

    not_yet: how serious that is at this point of the run.
    """
    collapsed = [
        f"layer {layer} of {name}"
        for name, statistics in figures.attention.items()
        if name != CROSS
        for layer, entropy in enumerate(statistics.entropy, start=1)
        if (entropy < _COLLAPSED).all()
    ]
    if collapsed:
        yield Finding(
            not_yet,
            f"every head looks at one position only in {_listed(collapsed)}",
            "scores have grown so large that the softmax is flat and no gradient changes where "
            "these heads look; a layer that picks single tokens does less than it could",
            f"--model.norm pre, or {SOFTER}",
        )


def source_matters(figures: Figures) -> bool:
    """Returns whether the right source makes the loss lower than one of mixed-up words."""
    losses = figures.losses
    return not losses.shuffled < losses.validation * (1 + _GAIN_OF_SOURCE)


def how_to_use_the_source(config: Config) -> str:
    """Returns what to try where the decoder does not use the source."""
    begun = "train longer if it has only begun"
    if isinstance(config.model, RecurrentConfig):
        return (
            f"{begun}, {SOFTER}, or another --model.attention; check that the pairs belong together"
        )
    return f"{begun}, --model.norm pre, {SOFTER}; check that the pairs belong together"


def _listed(names: Sequence[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
