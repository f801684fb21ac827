"""Checkpoints: written in the background, whole or not at all, readable on any mesh."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from flax_transformer.config import Config
from flax_transformer.config_error import ConfigError
from flax_transformer.training.state import TrainState, abstract_state

CHECKPOINTS, BEST = "checkpoints", "best"


@dataclass(frozen=True)
class Progress:
    """What a run remembers besides its state."""

    tokenizer: str
    """Fingerprint of the vocabulary."""
    best_bleu: float | None = None
    """Highest validation BLEU so far."""
    validations_since_best: int = 0


class _Regular:
    """Keeps the last `count` checkpoints at multiples of `every`, and whichever is the newest.

    So a run that was interrupted, and saved where it stood, averages over the same checkpoints
    as one that was not.
    """

    def __init__(self, count: int, every: int):
        self.count, self.every = count, every

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        regular = [c.step for c in checkpoints if c.step % self.every == 0][-self.count :]
        newest = checkpoints[-1].step if checkpoints else None
        return [c.step in regular or c.step == newest for c in checkpoints]


def _manager(directory: Path, policy: Any = None) -> ocp.CheckpointManager:
    # Two managers may write the same step at the same time: their processes meet under names of
    # their own, or one would take the other's meeting for its own.
    names = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=directory.name)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy, create=True, multiprocessing_options=names
    )
    return ocp.CheckpointManager(epath.Path(directory.absolute()), options=options)


class Checkpoints:
    """The checkpoints of one work directory: the latest, and the best by validation BLEU."""

    def __init__(self, workdir: Path, config: Config):
        training = config.training
        policy = _Regular(training.keep_checkpoints, training.checkpoint_every)
        self._latest = _manager(workdir / CHECKPOINTS, policy)
        self._best = _manager(workdir / BEST, _Regular(0, 1))

    def save(self, state: TrainState, progress: Progress) -> None:
        """Starts writing `state`; an error of the write before surfaces here."""
        self._save(self._latest, state, progress)

    def save_best(self, state: TrainState, progress: Progress) -> None:
        """As `save`, in place of the best checkpoint so far."""
        self._save(self._best, state, progress)

    @staticmethod
    def _save(manager: ocp.CheckpointManager, state: TrainState, progress: Progress) -> None:
        step = int(jax.device_get(state.step))
        if step in manager.all_steps():
            return
        manager.check_for_errors()
        manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                optimizer=ocp.args.StandardSave(state.optimizer_state),
                progress=ocp.args.JsonSave(asdict(progress)),
            ),
        )

    def restore(
        self, config: Config, mesh: jax.sharding.Mesh
    ) -> tuple[TrainState, Progress] | None:
        """The newest state, laid out on `mesh` whatever mesh wrote it; None where there is none."""
        step = self._latest.latest_step()
        if step is None:
            return None
        abstract = abstract_state(config, mesh)
        restored = self._latest.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract.params),
                optimizer=ocp.args.StandardRestore(abstract.optimizer_state),
                progress=ocp.args.JsonRestore(),
            ),
        )
        counter = jax.make_array_from_callback(
            (), abstract.step.sharding, lambda _: np.asarray(step, np.int32)
        )
        state = TrainState(counter, restored.params, restored.optimizer)
        return state, Progress(**restored.progress)

    def close(self) -> None:
        """Waits until everything is written; raises what went wrong with it."""
        for manager in (self._latest, self._best):
            manager.wait_until_finished()
            manager.check_for_errors()
            manager.close()


def load_parameters(
    workdir: Path, config: Config, mesh: jax.sharding.Mesh, average: int
) -> tuple[Any, list[int]]:
    """The mean of the parameters of the last `average` checkpoints (Section 6.1), and their steps.

    Raises `ConfigError` where `workdir` holds no checkpoint.
    """
    directory = workdir / CHECKPOINTS
    if not directory.is_dir():
        raise ConfigError(f"{workdir} holds no checkpoints: has it been trained?")
    manager = _manager(directory)
    steps = sorted(manager.all_steps())
    every = config.training.checkpoint_every
    chosen = [step for step in steps if step % every == 0 or step == steps[-1]][-average:]
    if not chosen:
        raise ConfigError(f"{directory} holds no finished checkpoint yet")
    template = abstract_state(config, mesh).params
    total = None
    for step in chosen:
        arguments = ocp.args.Composite(params=ocp.args.StandardRestore(template))
        params = manager.restore(step, args=arguments).params
        total = params if total is None else jax.tree.map(jnp.add, total, params)
    manager.close()
    return jax.tree.map(lambda sum_: sum_ / len(chosen), total), chosen
