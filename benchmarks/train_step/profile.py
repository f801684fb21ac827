"""Where a training step's time goes, by JAX's own trace of the compiled program.

    python -m benchmarks.train_step.profile
    python -m benchmarks.train_step.profile --config configs/quickstart.py --sentence-tokens 13

Without --config the model is the small one of ours.py: 7.6M parameters, 128 rows of 32 + 32. The
shares are of the time in the program's operations, of which two may run at once on two cores.
Nothing else should run on the machine.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import tyro

from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.timing import in_turns
from benchmarks.train_step.contender import take_steps
from benchmarks.train_step.made_up_batches import full_batches, packed_batches
from benchmarks.train_step.ours import OurStep, settings_before_flags
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import Config
from flax_transformer.ops.compute_dtype import settle_compute_dtype

PRODUCTS = {
    "products of the loss": r"(nd,vd->nv|nv,vd->nd|[dn]{2},nv->dv)/dot_general",
    "products of feed-forward": r"feed_forward/\S*->\S*/dot_general",
    "projections of attention": r"attention\S*(dhk|hkd)\S*/dot_general",
    "scores and sums of attention": r"attention\S*(bhts|bthk|bshk)\S*/dot_general",
}
OTHERS = {
    "softmax and masks of attention": r"attention",
    "dropout": r"dropout",
    "layer norm": r"norm",
}
"""What an operation belongs to, by the first pattern that the name of its origin has."""


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Traces training steps, and sums the time of their operations by kind."""

    config: Path | None = None
    """Python file with the settings; by default the small model of ours.py."""
    steps: int = 6
    """Steps that are traced, after two that warm up."""
    sentence_tokens: int | None = None
    """Mean length of a made-up sentence; by default one fills its row."""
    record: Path = RECORDS / "step_profile.json"
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def origins(program: str) -> dict[str, str]:
    """Returns, for each operation of a compiled program, where in the code it comes from."""
    found = re.findall(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*op_name="([^"]*)"', program, re.MULTILINE)
    return dict(found)


def timed(folder: Path) -> Iterator[tuple[str, float]]:
    """Yields name and seconds of each operation in the trace that `folder` holds."""
    (path,) = folder.rglob("*.xplane.pb")
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                if operation := dict(event.stats).get("hlo_op"):
                    yield str(operation), event.duration_ns / 1e9


def kind_of(operation: str, origin: str) -> str:
    for kind, pattern in PRODUCTS.items():
        if re.search(pattern, origin):
            return kind
    if operation.startswith(("transpose", "copy")):
        return "arrays laid out anew"
    return next(
        (kind for kind, pattern in OTHERS.items() if re.search(pattern, origin)), "the rest"
    )


def seconds_by_kind(step: OurStep, steps: int) -> Counter[str]:
    """Traces `steps` steps; returns the seconds of each kind of operation in one of them."""
    with tempfile.TemporaryDirectory() as name:
        with jax.profiler.trace(name):
            take_steps(step, steps)
        names = origins(step.program.as_text())
        kinds: Counter[str] = Counter()
        for operation, taken in timed(Path(name)):
            kinds[kind_of(operation, names.get(operation, ""))] += taken / steps
    return kinds


def main(words: Sequence[str]) -> None:
    default = Arguments(settings=settings_before_flags(words))
    arguments = parse_arguments(Arguments, words, default)
    config = settle_compute_dtype(arguments.settings, jax.devices()[0])
    tokens = arguments.sentence_tokens
    batches = full_batches(config, 2) if tokens is None else packed_batches(config, 2, tokens)
    step = OurStep(config, batches)
    turns = in_turns({"step": partial(take_steps, step, 1)}, arguments.steps, warm_up=2)
    kinds = seconds_by_kind(step, arguments.steps)
    total = sum(kinds.values())
    shares = {kind: taken / total for kind, taken in kinds.most_common()}
    seconds = turns["step"].median
    print(f"{seconds:.3f} s per step in {config.model.compute_dtype}; {total:.3f} s in operations")
    for kind, share in shares.items():
        print(f"{share:7.1%}  {kind}")
    figures = {
        "config": str(arguments.config or "small"),
        "compute_dtype": config.model.compute_dtype,
        "step_seconds": seconds,
        "shares": {kind: round(share, 4) for kind, share in shares.items()},
    }
    append_record(arguments, ("jax", "jaxlib"), figures)


if __name__ == "__main__":
    run_command(main)
