"""Writes a trained model for others to serve:

    flax-transformer export --workdir runs/base --format ctranslate2 --output base_ct2

The parameters are those that `translate` uses, such as the mean of the last checkpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flax_transformer.commands.command_line import DecodingArguments, parse_decoding_arguments
from flax_transformer.files.whole_folder import require_no_folder


@dataclass(frozen=True, kw_only=True)
class ExportArguments(DecodingArguments):
    """Writes a trained model for CTranslate2, for Hugging Face's transformers, or as safetensors.

    The folder appears whole or not at all, with a README that says where the model comes from.
    """

    format: Literal["ctranslate2", "huggingface", "safetensors"]
    """ctranslate2: for its Translator, all Transformers; huggingface: a MarianMT folder, for models
    with norms after each sub-layer, or an M2M-100 folder, for what was imported from one;
    safetensors: under our own names, all models, a folder that every command reads like a work
    directory."""
    output: Path
    """Folder to make, which must not exist yet."""
    quantization: Literal["int8", "int8_bfloat16", "bfloat16", "float16"] | None = None
    """Type of the matrices in the files: each for ctranslate2, the last two for safetensors; by
    default float32."""


def main(words: Sequence[str]) -> None:
    arguments, config = parse_decoding_arguments(ExportArguments, words)
    require_no_folder(arguments.output)

    from flax_transformer.exchange.exporting import export_model
    from flax_transformer.translation.trained_model import TrainedModel

    model = TrainedModel(arguments.workdir, config)
    for note in model.notes:
        print(note, file=sys.stderr)
    usage = export_model(model, arguments.output, arguments.format, arguments.quantization)
    size = sum(path.stat().st_size for path in arguments.output.iterdir())
    print(f"{arguments.output}: {size / 1e6:,.1f} MB. To open it in Python:\n\n{usage}")
