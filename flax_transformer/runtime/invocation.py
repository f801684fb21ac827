"""How this program was started: what its usage line calls it, and what a person types next."""

import shutil
import sys
from pathlib import Path

INSTALLED = "flax-transformer"
"""The program that pip installs; its first word names the command."""

_CHECKOUT = Path(__file__).parents[2]


def program_name() -> str:
    """Returns what the usage line begins with: `train.py`, or `flax-transformer train`."""
    started = Path(sys.argv[0])
    return " ".join([INSTALLED, *sys.argv[1:2]]) if started.stem == INSTALLED else started.name


def how_to_start(command: str) -> str:
    """Returns what to type for `command`, such as "translate".

    It is `python translate.py` where a script of the checkout was started and has one beside it for
    the command, else `flax-transformer translate`; each with its path where PATH does not lead to
    it, as in an environment that nobody has activated.
    """
    started = Path(sys.argv[0])
    script = started.parent / f"{command}.py"
    beside_package = script.is_file() and script.resolve().parent == _CHECKOUT
    if beside_package and started.stem != INSTALLED:
        return f"{_as_typed('python')} {script}"
    return f"{_as_typed(INSTALLED)} {command}"


def _as_typed(name: str) -> str:
    """Returns `name`, a program of this interpreter's environment, as the shell would find it."""
    own = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not own.is_file() or (found is not None and Path(found) == own):
        return name
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)
