"""COMET (Rei et al. 2020), a trained metric, by the command of the package unbabel-comet.

The package asks for numpy below 2, jax for 2 or above, so the two share no environment: the command
runs in one of its own, such as pipx and uv make for a tool.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax

from flax_transformer.errors import UserError, require

_MOST_SHOWN = 200
"""Characters of what the command complains of."""


def require_comet(command: str) -> None:
    """Raises `UserError` where there is no such `command`."""
    require(
        shutil.which(command) is not None,
        f"--metrics comet runs the command {command}, which is not there:\n"
        "uv tool install unbabel-comet (it cannot share an environment with jax), or name it with "
        "--comet-command",
    )


def comet_score(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    command: str,
    model: str,
) -> tuple[float, str]:
    """Returns COMET in points of 100, the mean over all sentences, with a signature.

    command: comet-score, or a path to it
    model:   a name that it knows, such as Unbabel/wmt22-comet-da, or a file .ckpt

    Raises `UserError` where the command fails, as without a network for a model that it has not
    fetched yet.
    """
    require_comet(command)
    with tempfile.TemporaryDirectory() as folder:
        texts = {"-s": sources, "-t": hypotheses, "-r": references}
        words = [command]
        for option, lines in texts.items():
            path = Path(folder) / option.strip("-")
            # The command also ends lines at "\r".
            path.write_text("".join(f"{line}\n".replace("\r", " ") for line in lines), "utf-8")
            words += [option, str(path)]
        result = Path(folder) / "scores.json"
        gpus = 1 if jax.default_backend() == "gpu" else 0
        words += ["--model", model, "--to_json", str(result), "--quiet", "--gpus", str(gpus)]
        environment = os.environ | {"PYTHONUTF8": "1"}
        ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode or not result.exists():
            *_, last = ["no message", *ended.stderr.split("\n")[:-1]]
            raise UserError(
                f"{command} failed with code {ended.returncode} ({last[-_MOST_SHOWN:]}):\n"
                "try it by itself, or leave comet out of --metrics"
            )
        (sentences,) = json.loads(result.read_text("utf-8")).values()
    require(
        len(sentences) == len(hypotheses),
        f"{command} has scored {len(sentences)} sentences of {len(hypotheses)}: try it by itself",
    )
    mean = sum(each["COMET"] for each in sentences) / len(sentences)
    return 100 * mean, f"model:{model}|refs:1"
