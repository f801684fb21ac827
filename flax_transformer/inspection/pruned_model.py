"""A model without some of its attention heads, as a work directory of its own."""

import dataclasses
from pathlib import Path

from flax_transformer.checkpoints.writing import write_parameters
from flax_transformer.config import Config
from flax_transformer.config.json import load_config, save_config
from flax_transformer.files.whole_file import write_whole
from flax_transformer.files.whole_folder import whole_folder
from flax_transformer.inspection.head_report import as_json, plot_importance
from flax_transformer.inspection.heads import HeadImportance, Masks, require_transformer
from flax_transformer.inspection.pruning import Pruning
from flax_transformer.models.heads import keep_heads, with_heads
from flax_transformer.translation.trained_model import TrainedModel
from flax_transformer.workdir import CONFIG_FILE, HEADS_FILE, HEADS_PICTURE, TOKENIZER_FILE


def write_pruned(
    path: Path, model: TrainedModel, importance: HeadImportance, pruning: Pruning
) -> None:
    """Writes what `pruning` chose of `model` to the work directory `path`, whole or not at all.

    Beside it lies what was measured, in HEADS_FILE and HEADS_PICTURE. The only checkpoint holds
    what is left of the parameters that `model` translates with, and no optimizer's state: from it
    another run can start, but none go on.

    Raises `UserError` where something lies at `path`, and `UserError` or `CheckpointError` where it
    cannot be written.
    """
    masks = pruning.chosen.masks
    start = {
        "directory": str(model.workdir),
        "checkpoint": model.choice,
        "steps": model.steps,
        "trained_on": model.progress.corpus,
    }
    progress = dataclasses.replace(model.progress.without_best(), start=start)
    with whole_folder(path) as folder:
        save_config(_config(model.workdir, masks), folder / CONFIG_FILE)
        write_whole(folder / TOKENIZER_FILE, (model.workdir / TOKENIZER_FILE).read_bytes())
        write_parameters(folder, model.steps[-1], keep_heads(model.params, masks), progress)
        write_whole(folder / HEADS_FILE, as_json(importance, pruning, start))
        plot_importance(importance, pruning.chosen).save(folder / HEADS_PICTURE)


def _config(workdir: Path, masks: Masks) -> Config:
    """Returns the settings of the run in `workdir`, for a model with the heads of `masks`."""
    config = load_config(workdir / CONFIG_FILE)
    # Which checkpoint was chosen is in `Progress.start`: there is only one in the new folder.
    decoding = dataclasses.replace(config.decoding, checkpoint="auto")
    training = dataclasses.replace(config.training, start_from=str(workdir))
    model = with_heads(require_transformer(config), masks)
    return dataclasses.replace(config, model=model, decoding=decoding, training=training)
