"""Kernels of a GPU that give the same numbers in every run.

By default XLA times several kernels for a product and takes the fastest, which need not be the same
one in the next run. It also sums by atomic additions, whose order differs from time to time.
"""

import os
from pathlib import Path

from flax_transformer.errors import UserError

FLAGS = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")
"""Flags of XLA, in jax 0.10 to 0.12; it ends the program at a flag that it does not know. The first
includes xla_gpu_exclude_nondeterministic_ops. On CPU and TPU they change nothing."""

_VARIABLE = "XLA_FLAGS"


def choose_deterministic_kernels() -> None:
    """Adds `FLAGS` to the environment's flags, which XLA reads as JAX begins to compute.

    Flags that the user has set there stay as they are. Raises `UserError` where flags are missing
    and the variable names a file of flags: that is the user's, and is not changed.
    """
    chosen = chosen_flags()
    missing = [flag for flag in FLAGS if _name(flag) not in chosen]
    if not missing:
        return
    if _file() is not None:
        raise UserError(
            f"training.deterministic needs flags that {_VARIABLE}'s file {_file()} lacks: add "
            f"{' '.join(missing)} to it, or unset {_VARIABLE}"
        )
    os.environ[_VARIABLE] = " ".join([os.environ.get(_VARIABLE, ""), *missing]).strip()


def kernels_are_deterministic() -> bool:
    """Returns whether XLA was told to take deterministic kernels only, by us or by the user."""
    return chosen_flags().get(_name(FLAGS[0]), "false").lower() in ("", "1", "true")


def chosen_flags() -> dict[str, str]:
    """Returns the flags that XLA will read: values by names, such as --xla_gpu_autotune_level.

    Of several flags of one name the last counts.
    """
    path = _file()
    try:
        text = os.environ.get(_VARIABLE, "") if path is None else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{_VARIABLE} names {path}, which cannot be read: {error}") from None
    return {_name(flag): flag.partition("=")[2] for flag in text.split()}


def _file() -> Path | None:
    """Returns what XLA takes for the name of a file that holds the flags, or None."""
    text = os.environ.get(_VARIABLE, "").strip()
    return Path(text) if text and not text.startswith("-") else None


def _name(flag: str) -> str:
    return flag.partition("=")[0]
