"""The parameters to translate with, of a run's checkpoints or of one file."""

from pathlib import Path
from typing import Any, NamedTuple

from flax_transformer.checkpoints.parameters_file import read_parameters_file
from flax_transformer.checkpoints.progress import Progress
from flax_transformer.config import Config
from flax_transformer.errors import require
from flax_transformer.workdir import CHECKPOINTS, PARAMETERS_FILE


class Loaded(NamedTuple):
    """Parameters to translate with.

    steps:    those of the checkpoints that they are the mean of
    choice:   which checkpoints were asked for
    progress: of the newest of them
    notes:    for a person, such as what was damaged
    """

    params: Any
    steps: list[int]
    choice: str
    progress: Progress
    notes: list[str]


def load_parameters(workdir: Path, config: Config, like: Any) -> Loaded:
    """Returns the parameters that `config.decoding` chooses, by default the mean of the last ones.

    The mean is that of Section 6.1. Nothing is written, and training may go on meanwhile. The
    arrays have the shardings of `like`, which holds arrays or descriptions of arrays.

    Where there are no checkpoints, but one file of parameters, they are those.

    Damaged checkpoints are left out. Raises `CheckpointError` where no sound one is left, and
    `UserError` where there is none at all or not the chosen one.
    """
    path = workdir / PARAMETERS_FILE
    if path.is_file() and not (workdir / CHECKPOINTS).is_dir():
        return _load_file(path, config, like)
    from flax_transformer.checkpoints.averaging import average  # not above: Orbax is slow to load

    return average(workdir, config, like)


def _load_file(path: Path, config: Config, like: Any) -> Loaded:
    params, origin = read_parameters_file(path, like)
    chosen = config.decoding.checkpoint
    require(
        chosen in ("auto", origin.choice),
        f"--checkpoint is {chosen}, but {path} holds one set of parameters ({origin.choice}): "
        "leave it out",
    )
    return Loaded(params, origin.steps, origin.choice, origin.progress, [])
