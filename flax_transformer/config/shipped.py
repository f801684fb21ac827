"""Config files and trained models: those that come with the package by name, others by path."""

import runpy
from pathlib import Path

from flax_transformer.config.json import load_config
from flax_transformer.config.run import Config
from flax_transformer.errors import UserError

_PACKAGE = Path(__file__).parents[1]
_MODELS = _PACKAGE / "shipped_models"
_PLACES = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
"""Where the shipped files lie: inside an installed package, or beside the package in a checkout."""


def shipped_configs() -> dict[str, Path]:
    """Returns the files that come with the package, by name."""
    place = next((place for place in _PLACES if place.is_dir()), None)
    return {path.stem: path for path in sorted(place.glob("*.py"))} if place else {}


def shipped_models() -> dict[str, Path]:
    """Returns the folders of the trained models that come with the package, by name."""
    return {path.parent.name: path.parent for path in sorted(_MODELS.glob("*/config.json"))}


def find_shipped_model(name: str) -> Path:
    """Returns the folder of the shipped model of that name; raises `UserError` for others."""
    models = shipped_models()
    if name not in models:
        raise UserError(f"no model '{name}' comes with the package; there is: {', '.join(models)}")
    return models[name]


def model_folder(name_or_path: str | Path) -> Path:
    """Returns the folder of a model: a path, or, where nothing lies there, a shipped one's name."""
    path = Path(name_or_path)
    return path if path.exists() else shipped_models().get(str(name_or_path), path)


def load_config_file(name_or_path: str | Path) -> Config:
    """Returns the `Config` that a Python file assigns to the name `config`, or that of a run.

    name_or_path: path of a Python file, or of the config.json of a run; where there is no such
                  file, the name of a shipped one, such as "quickstart"

    Raises `UserError` naming the file for anything wrong in it.
    """
    path = _find(Path(name_or_path))
    if path.suffix == ".json":
        return load_config(path)
    try:
        config = runpy.run_path(str(path)).get("config")
    except Exception as error:
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise UserError(f"{path} must assign a Config to the name 'config'")
    return config


def _find(path: Path) -> Path:
    shipped = shipped_configs()
    if path.is_file():
        return path
    if (name := str(path)) in shipped:
        return shipped[name]
    by_name = ", ".join(shipped)
    if not path.suffix and len(path.parts) == 1:
        raise UserError(f"{path} is neither a file nor a shipped config; there is: {by_name}")
    beside = ", ".join(sorted(map(str, path.parent.glob("*.py"))))
    known = beside or f"no .py file beside it, but by name: {by_name}"
    raise UserError(f"{path} does not exist; there is: {known}")
