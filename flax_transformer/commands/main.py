"""Where every command begins: `python train.py ...` and `flax-transformer train ...`."""

import importlib

from flax_transformer.runtime.stop_signals import leave_at_once


def run(name: str) -> None:
    """Runs the command of that name with the words of the command line, and ends the program."""
    leave_at_once()  # at Ctrl-C, while the modules below are loaded
    from flax_transformer.commands.command_line import run_command

    run_command(importlib.import_module(f"flax_transformer.commands.{name}").main)
