"""Makes a work directory from a model of Hugging Face:

    flax-transformer import --from opus-mt-en-fr --workdir runs/opus

Everything else works on it as on a run of our own. Nothing is downloaded, and nothing executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from flax_transformer.commands.command_line import parse_arguments
from flax_transformer.runtime.invocation import how_to_start


@dataclass(frozen=True, kw_only=True)
class ImportArguments:
    """Imports a model of Hugging Face: MarianMT (OPUS-MT), or M2M-100's architecture (NLLB too).

    The folder holds config.json, model.safetensors (or pytorch_model.bin) and the vocabulary. The
    work directory appears whole or not at all.
    """

    folder: Annotated[Path, tyro.conf.arg(name="from")]
    """Folder of the model, as transformers writes it."""
    workdir: Path
    """Work directory to make, which must not exist yet."""
    source_language: str | None = None
    """For a model of many languages: the one to translate from, as the model names it, such as en
    (M2M-100) or eng_Latn (NLLB)."""
    target_language: str | None = None
    """The one to translate to, such as fr, fra_Latn or, for >>fra<< of OPUS-MT, fra."""


def main(words: Sequence[str]) -> None:
    arguments = parse_arguments(ImportArguments, words)

    from flax_transformer.exchange.importing import import_model

    imported = import_model(
        arguments.folder, arguments.workdir, arguments.source_language, arguments.target_language
    )
    print(
        f"{arguments.folder}: {imported}\n"
        f"The work directory is {arguments.workdir}. Next: translate with it,\n"
        f"  echo ... | {how_to_start('translate')} --workdir {arguments.workdir}\n"
        "or train it further on pairs of your own,\n"
        f"  {how_to_start('train')} --config {arguments.workdir / 'config.json'} "
        f"--start-from {arguments.workdir} --workdir {arguments.workdir}_tuned "
        "--data.directory DIR --data.source-language en --data.target-language fr "
        "--training.steps 1000"
    )
