"""From checkpoints back to arrays, laid out on any mesh; damaged ones are passed over by name."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from flax_transformer.config import Config
from flax_transformer.config_error import ConfigError
from flax_transformer.hosts import from_first_process, is_first_process
from flax_transformer.training.checkpoint_files import (
    DamagedCheckpointError,
    check_whole,
    list_steps,
    set_aside,
)
from flax_transformer.training.checkpoints import (
    BEST,
    CHECKPOINTS,
    OPTIMIZER,
    PARAMS,
    PROGRESS,
    regular_steps,
)
from flax_transformer.training.orbax_errors import reason
from flax_transformer.training.progress import Progress
from flax_transformer.training.state import TrainState, abstract_state

_ATTEMPTS = 100
"""How often what a training run removes meanwhile is looked for again."""


class Loaded(NamedTuple):
    """Parameters to translate with.

    steps: of the checkpoints that they are the mean of. choice: which were asked for. progress: of
    the newest of them. notes: for a person, such as what was damaged.
    """

    params: Any
    steps: list[int]
    choice: str
    progress: Progress
    notes: list[str]


class _GoneError(Exception):
    """Training has removed a checkpoint that was being read."""


def restore_newest(
    workdir: Path,
    config: Config,
    mesh: jax.sharding.Mesh,
    warn: Callable[[str], None] = print,
    leave_as_is: bool = False,
) -> tuple[TrainState, Progress] | None:
    """The newest state that is whole and finite, whatever mesh wrote it; None where there is no
    checkpoint at all.

    Newer ones that are damaged are named through `warn` and set aside, unless `leave_as_is`. Raises
    `ConfigError` where all are damaged.
    """
    folder = _Folder(workdir / CHECKPOINTS, (PARAMS, OPTIMIZER, PROGRESS))
    steps = folder.steps()
    for step in reversed(steps):
        try:
            folder.check(step)
            abstract = abstract_state(config, mesh)
            params = folder.restore(step, PARAMS, abstract.params)
            optimizer = folder.restore(step, OPTIMIZER, abstract.optimizer_state)
            progress = folder.progress(step)
        except (DamagedCheckpointError, _GoneError) as error:
            folder.damaged[step] = str(error)
            continue
        for damaged, problem in folder.damaged.items():
            name = folder.directory / str(damaged)
            if is_first_process() and not leave_as_is:
                name = set_aside(name)
            warn(f"checkpoint {damaged} is damaged ({problem}); it lies in {name}")
        return TrainState(_on_mesh(step, abstract.step.sharding), params, optimizer), progress
    if folder.damaged:
        raise ConfigError(
            f"{folder.directory} holds damaged checkpoints only ({folder.describe_damaged()}): put "
            "a copy of one back, or start anew with another --workdir"
        )
    return None


def load_parameters(workdir: Path, config: Config, mesh: jax.sharding.Mesh) -> Loaded:
    """The parameters that `config.decoding` chooses, by default the mean of those of the last
    checkpoints (Section 6.1). Nothing is written, and training may go on meanwhile.

    Damaged checkpoints are left out. Raises `ConfigError` where there is none to use.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return _load_parameters(workdir, config, mesh)
        except _GoneError:
            time.sleep(0.01 * attempt)
    raise ConfigError(
        f"{workdir}: checkpoints are removed faster than they can be read: raise "
        "--training.keep-checkpoints, or wait until training has ended"
    )


def _load_parameters(workdir: Path, config: Config, mesh: jax.sharding.Mesh) -> Loaded:
    choice = _choose(workdir, config)
    folder, waiting = choice.folder, choice.steps
    template = abstract_state(config, mesh).params
    while waiting:
        used, total, progress = _sum_parameters(folder, waiting[-choice.most :], template)
        if progress is not None:
            damaged = f"warning: left out of {folder.directory}: {folder.describe_damaged()}"
            notes = [*choice.notes, *([damaged] if folder.damaged else [])]
            mean = jax.tree.map(partial(_divide, len(used)), total)
            return Loaded(mean, used, choice.name, progress, notes)
        waiting = waiting[: -choice.most]
    raise ConfigError(
        f"{folder.directory} holds no sound checkpoint ({folder.describe_damaged()}): put a copy "
        "of one back, or choose others with --checkpoint"
    )


def _sum_parameters(
    folder: "_Folder", steps: list[int], template: Any
) -> tuple[list[int], Any, Progress | None]:
    """Those of the steps that are sound, the sum of their parameters, what the last remembers."""
    used: list[int] = []
    total: Any = None
    progress = None
    for step in steps:  # the oldest first, which training removes first
        try:
            folder.check(step)
            params = folder.restore(step, PARAMS, template)
            progress = folder.progress(step)
        except DamagedCheckpointError as error:
            folder.damaged[step] = str(error)
            continue
        total = params if total is None else jax.tree.map(jnp.add, total, params)
        used.append(step)
    return used, total, progress


def _divide(count: int, total: jax.Array) -> jax.Array:
    return total / count


class _Choice(NamedTuple):
    """At most so many of the newest `steps` in `folder`."""

    name: str
    folder: "_Folder"
    steps: list[int]
    most: int
    notes: tuple[str, ...] = ()


def _choose(workdir: Path, config: Config) -> _Choice:
    decoding = config.decoding
    latest, best = (_Folder(workdir / name, (PARAMS, PROGRESS)) for name in (CHECKPOINTS, BEST))
    steps, best_steps = latest.steps(), best.steps()
    if not steps and not best_steps:
        raise ConfigError(f"{workdir} holds no checkpoints: has it been trained?")
    regular = regular_steps(steps, config.training.checkpoint_every)
    average = _Choice("average", latest, regular, decoding.average_checkpoints)
    newest_best = _Choice("best", best, best_steps, 1)
    match decoding.checkpoint:
        case "auto":
            if best_steps and _ended_early(latest, config):
                note = (
                    f"Training ended early, as BLEU no longer rose: the parameters are those of "
                    f"step {best_steps[-1]:,}, the best (--checkpoint average takes the last ones)"
                )
                return newest_best._replace(notes=(note,))
            return average
        case "average":
            return average
        case "latest":
            return _Choice("latest", latest, steps, 1)
        case "best":
            if not best_steps:
                raise ConfigError(f"{workdir} holds no best checkpoint: use --checkpoint average")
            return newest_best
        case step:
            for folder, present in ((latest, steps), (best, best_steps)):
                if step in present:
                    return _Choice(f"step {step}", folder, [step], 1)
            known = ", ".join(map(str, sorted({*steps, *best_steps})))
            raise ConfigError(f"--checkpoint is {step}, but {workdir} holds only {known}")


def _ended_early(latest: "_Folder", config: Config) -> bool:
    """Whether the newest checkpoint that can be read was the end of patience."""
    for step in reversed(latest.steps()):
        try:
            latest.check(step)
            since_best = latest.progress(step).validations_since_best
        except DamagedCheckpointError:
            continue
        return 0 < config.training.patience <= since_best
    return False


@dataclass
class _Folder:
    """Checkpoints in one folder, of which `items` are wanted; `damaged`: what is wrong, by step.

    Of several processes the first looks at the files, and all raise the same.
    """

    directory: Path
    items: Sequence[str]

    def __post_init__(self) -> None:
        self.directory = self.directory.absolute()
        self.damaged: dict[int, str] = {}

    def steps(self) -> list[int]:
        """Those of the checkpoints, oldest first."""
        return from_first_process(lambda: list_steps(self.directory))

    def check(self, step: int) -> None:
        """Raises `DamagedCheckpointError` unless all files are what was written."""

        def check() -> str:
            try:
                check_whole(self.directory / str(step), self.items)
            except DamagedCheckpointError as error:
                return str(error)
            return ""

        if problem := from_first_process(check):
            raise self._problem(step, problem)

    def restore(self, step: int, item: str, template: Any) -> Any:
        """One of the items as arrays, which are finite, like those of `template`."""
        try:
            with closing(ocp.StandardCheckpointer()) as checkpointer:
                restored = checkpointer.restore(self.directory / str(step) / item, template)
        except Exception as error:  # whatever Orbax and what it builds on raise
            raise self._problem(step, f"{item}: {reason(error)}") from None
        if not _all_finite(restored):
            raise DamagedCheckpointError(f"{item} holds numbers that are not finite")
        return restored

    def progress(self, step: int) -> Progress:
        """What the run remembered."""
        try:
            with closing(ocp.Checkpointer(ocp.JsonCheckpointHandler())) as checkpointer:
                values = checkpointer.restore(self.directory / str(step) / PROGRESS)
            changes = tuple(values.pop("data_changes", ()))
            return Progress(**values, data_changes=changes)
        except Exception as error:
            raise self._problem(step, f"{PROGRESS}: {reason(error)}") from None

    def _problem(self, step: int, problem: str) -> Exception:
        if (self.directory / str(step)).exists():
            return DamagedCheckpointError(problem)
        return _GoneError(problem)

    def describe_damaged(self) -> str:
        return "; ".join(f"{step}: {problem}" for step, problem in sorted(self.damaged.items()))


def _all_finite(tree: Any) -> bool:
    """Whether all numbers are, in every process; on the host, where nothing need be compiled."""
    finite = all(
        np.isfinite(shard.data).all()
        for leaf in jax.tree.leaves(tree)
        for shard in leaf.addressable_shards
        if shard.replica_id == 0
    )
    if jax.process_count() > 1:
        finite = bool(multihost_utils.process_allgather(np.int32(finite)).all())
    return bool(finite)


def _on_mesh(step: int, sharding: jax.sharding.Sharding) -> jax.Array:
    """The counter of optimizer steps, on every device."""
    return jax.make_array_from_callback((), sharding, lambda _: np.asarray(step, np.int32))
