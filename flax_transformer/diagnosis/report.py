"""A diagnosis as lines for a person."""

import textwrap
from collections.abc import Iterator, Sequence

from flax_transformer.config import Config
from flax_transformer.diagnosis.figures import Figures
from flax_transformer.diagnosis.finding import Finding
from flax_transformer.diagnosis.norms import together

_WIDTH = 100


def describe(config: Config, figures: Figures, findings: Sequence[Finding]) -> list[str]:
    """Returns the lines: figures first, findings last, where the eye rests."""
    return [
        f"\nThe run after step {figures.step:,} of {config.training.steps:,}",
        *_describe_modules(figures),
        *_describe_attention(figures),
        *_describe_losses(figures),
        *_describe_outputs(figures),
        *_describe_findings(findings),
    ]


def _describe_modules(figures: Figures) -> Iterator[str]:
    rate = figures.rate
    yield f"\nnext step, learning rate {rate.now:.3g} (peak {rate.peak:.3g})"
    yield f"  {'':<42}{'gradient':>11}{'parameters':>12}{'update/parameters':>19}"
    for module in [*figures.modules, together(figures.modules)]:
        yield (
            f"  {module.name:<42}{module.gradient:>11.2e}{module.parameter:>12.3g}"
            f"{module.ratio:>19.1e}"
        )


def _describe_attention(figures: Figures) -> Iterator[str]:
    if not figures.attention:
        return
    yield "\nattention entropy by head; 100% is spread evenly over all positions that it may see"
    for name, found in figures.attention.items():
        for layer, heads in enumerate(found.entropy, start=1):
            shares = " ".join(f"{head:>4.0%}" for head in heads)
            yield f"  {name + f', layer {layer}':<42}{shares}"


def _describe_losses(figures: Figures) -> Iterator[str]:
    losses, baselines = figures.losses, figures.baselines
    yield "\nloss, nats per target token, without label smoothing and dropout"
    yield _line("validation", losses.validation, "")
    yield _line("training", losses.training, "the batches of the last steps")
    yield _line("shuffled sources", losses.shuffled, "validation, the sources' words mixed up")
    yield _line("log(vocabulary)", baselines.uniform, "guessing uniformly")
    yield _line("unigram", baselines.unigram, "word frequencies alone")
    yield _line("bigram", baselines.bigram, "the previous word alone")
    if baselines.smoothing_floor:
        floor = "label smoothing lets no training loss in metrics.jsonl fall lower"
        yield _line("floor", baselines.smoothing_floor, floor)


def _describe_outputs(figures: Figures) -> Iterator[str]:
    outputs, pairs = figures.outputs, figures.pairs
    yield f"\ngreedy translations of {outputs.sentences} validation sentences"
    yield (
        f"  {outputs.repeated:.1%} of tokens repeated (of the references' "
        f"{outputs.repeated_in_references:.1%}), {outputs.identical:.1%} same for another source, "
        f"{outputs.empty:.1%} empty, {outputs.too_long:.1%} cut by length"
    )
    yield f"\ntraining pairs ({pairs.pairs:,} of them)"
    yield (
        f"  {pairs.source_fill:.1%} of source and {pairs.target_fill:.1%} of target slots filled, "
        f"{pairs.length_ratio:.2f} target tokens per source token,"
    )
    yield (
        f"  {pairs.copies:.1%} copies of the source, bytes {pairs.source_bytes:.1%} of source and "
        f"{pairs.target_bytes:.1%} of target tokens"
    )


def _describe_findings(findings: Sequence[Finding]) -> Iterator[str]:
    yield "\nfindings, the most serious first"
    if all(finding.severity == "note" for finding in findings):
        yield "  Nothing looks wrong."
    for finding in findings:
        text = f"{finding.severity}: {finding.seen}. {_sentence(finding.meaning)}"
        yield from textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
        if finding.remedy:
            remedy = f"try: {finding.remedy}"
            yield from textwrap.wrap(
                remedy, _WIDTH, initial_indent="    ", subsequent_indent="      ",
                break_on_hyphens=False,
            )  # fmt: skip
    if any(finding.remedy for finding in findings):
        yield "  Settings of a run are fixed: try others in a new --workdir."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _line(name: str, value: float, remark: str) -> str:
    return f"  {name:<20}{value:>8.3f}  {remark}".rstrip()
