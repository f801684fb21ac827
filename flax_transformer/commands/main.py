"""Where every command begins: `python train.py ...`, or installed `flax-transformer train ...`."""

import importlib
import sys
from collections.abc import Sequence

from flax_transformer import __version__
from flax_transformer.runtime.invocation import INSTALLED
from flax_transformer.runtime.stop_signals import leave_at_once

COMMANDS = {
    "train": "Trains a translation model, or goes on where it stopped.",
    "evaluate": "Scores a trained model on test sets.",
    "translate": "Translates lines of text with a trained model.",
    "score": "Says how probable a trained model finds translations.",
    "import": "Makes a work directory from a model of Hugging Face.",
    "export": "Writes a trained model for CTranslate2 or Hugging Face.",
    "inspect": "Draws what is inside a trained model.",
    "probe": "Measures what a trained model knows of words.",
    "prune": "Removes attention heads that a trained model can do without.",
    "serve": "Translates for others over HTTP, and shows how.",
}
"""Each is a module beside this one, with a function `main` that takes the command's words."""


def run(name: str) -> None:
    """Runs the command of that name with the words of the command line, and ends the program."""
    _run(name, sys.argv[1:])


def main() -> None:
    """Runs the command that the first word names, with the words after it."""
    name, *words = sys.argv[1:] or [""]
    if name in COMMANDS:
        return _run(name, words)
    leave_at_once()
    from flax_transformer.commands.command_line import run_command

    run_command(answer)


def _run(name: str, words: Sequence[str]) -> None:
    leave_at_once()  # at Ctrl-C, while the modules below are loaded
    from flax_transformer.commands.command_line import run_command

    run_command(importlib.import_module(f"flax_transformer.commands.{name}").main, words)


def answer(words: Sequence[str]) -> None:
    """Says what commands there are; `UserError` where that was not the question."""
    from difflib import get_close_matches

    from flax_transformer.errors import UserError

    first = words[0] if words else None
    if first in ("-h", "--help"):
        print(overview(), end="")
    elif first == "--version":
        print(f"{INSTALLED} {__version__}")
    elif first is None:
        raise UserError(f"{INSTALLED} needs a command: {', '.join(COMMANDS)}")
    else:
        near = get_close_matches(first, COMMANDS, n=1, cutoff=0)
        raise UserError(
            f"'{first}' is no command of {INSTALLED}: the nearest is '{near[0]}'; "
            f"there is: {', '.join(COMMANDS)}"
        )


def overview() -> str:
    """What `--help` without a command prints."""
    from flax_transformer.config.shipped import shipped_configs

    width = max(map(len, COMMANDS))
    lines = "".join(f"  {name:{width}}  {what}\n" for name, what in COMMANDS.items())
    return (
        f"usage: {INSTALLED} COMMAND [--help] ...\n\n"
        f"{lines}\n"
        f"{INSTALLED} COMMAND --help explains every setting. To begin with:\n\n"
        f"  {INSTALLED} train --config quickstart\n\n"
        f"Configs that come with it: {', '.join(shipped_configs())}.\n"
    )
