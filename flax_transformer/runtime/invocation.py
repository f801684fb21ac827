"""How this program was started: what its usage line calls it, and what a person types next."""

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

    It is `python translate.py` where a script of the checkout was started, else
    `flax-transformer translate`.
    """
    started = Path(sys.argv[0])
    script = started.parent / f"{command}.py"
    beside_package = script.is_file() and script.resolve().parent == _CHECKOUT
    by_script = beside_package and started.stem != INSTALLED
    return f"python {script}" if by_script else f"{INSTALLED} {command}"
