"""The folder of a run: its settings are fixed when it starts."""

import dataclasses
from pathlib import Path

from flax_transformer.config import Config
from flax_transformer.config_error import ConfigError
from flax_transformer.config_json import differing_fields, load_config, save_config
from flax_transformer.hosts import is_first_process

CONFIG_FILE = "config.json"


def open_workdir(workdir: Path, config: Config) -> None:
    """Creates `workdir` for a run with `config`, or checks that its run has the same settings.

    Only `mesh` and `decoding` may differ from those of the run so far, since neither changes what
    is trained; between the processes of a run nothing may. Raises `ConfigError` naming the settings
    that differ.
    """
    path = workdir / CONFIG_FILE
    if is_first_process():
        _check_same_run(path, config)
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            save_config(config, path)
        except OSError as error:
            raise ConfigError(f"--workdir {workdir} cannot be written: {error.strerror}") from None
    elif not path.exists():
        raise ConfigError(
            f"--workdir {workdir} is not the folder in which the first process has begun: name one "
            "that every host sees under the same name, such as on a network file system"
        )
    elif differences := differing_fields(load_config(path), config):
        raise ConfigError(f"the first process has other settings:\n  {_listed(differences)}")


def _check_same_run(path: Path, config: Config) -> None:
    if not path.exists():
        return
    before = load_config(path)
    same = dataclasses.replace(before, mesh=config.mesh, decoding=config.decoding)
    if differences := differing_fields(same, config):
        raise ConfigError(
            f"{path.parent} holds a run with other settings:\n  {_listed(differences)}\n"
            "Take them back to go on with it, or name another folder with --workdir."
        )


def _listed(differences: dict[str, str]) -> str:
    return "\n  ".join(differences.values())
