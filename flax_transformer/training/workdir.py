"""The folder of a run: its settings are fixed when it starts."""

import dataclasses
from pathlib import Path

from flax_transformer.config import Config, ConfigError
from flax_transformer.config_json import differing_fields, load_config, save_config

CONFIG_FILE = "config.json"


def open_workdir(workdir: Path, config: Config) -> None:
    """Creates `workdir` for a run with `config`, or checks that its run has the same settings.

    Only `mesh` and `decoding` may differ, since neither changes what is trained. Raises
    `ConfigError` naming the settings that differ.
    """
    path = workdir / CONFIG_FILE
    if path.exists():
        before = load_config(path)
        same = dataclasses.replace(before, mesh=config.mesh, decoding=config.decoding)
        if differences := differing_fields(same, config):
            listed = "\n  ".join(differences)
            raise ConfigError(
                f"{workdir} holds a run with other settings:\n  {listed}\n"
                "Take them back to go on with it, or name another folder with --workdir."
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        save_config(config, path)
    except OSError as error:
        raise ConfigError(f"--workdir {workdir} cannot be written: {error.strerror}") from None
