"""A work directory's model for others: `export_model(model, folder, "huggingface")`.

ctranslate2  opened by `ctranslate2.Translator`; every Transformer, quantised or not
huggingface  a folder for transformers, with tokenizer and search: MarianMT for post-norm models,
             M2M-100 for what was imported from it
safetensors  our own names, settings and vocabulary; every model, and a work directory to read from
"""

import dataclasses
from pathlib import Path
from typing import Literal, cast, get_args

import jax
import numpy as np

from flax_transformer.checkpoints.parameters_file import (
    Origin,
    StoredType,
    write_parameters_file,
)
from flax_transformer.config import TransformerConfig
from flax_transformer.config.json import load_config, save_config
from flax_transformer.errors import require
from flax_transformer.exchange import ctranslate2
from flax_transformer.exchange.hugging_face_folder import (
    require_architecture,
    write_hugging_face,
)
from flax_transformer.exchange.model_card import model_card
from flax_transformer.files.whole_file import write_whole
from flax_transformer.files.whole_folder import require_no_folder, whole_folder
from flax_transformer.text.imported_tokenizer import ImportedTokenizer
from flax_transformer.translation.trained_model import TrainedModel
from flax_transformer.workdir import CONFIG_FILE, PARAMETERS_FILE, TOKENIZER_FILE

Format = Literal["ctranslate2", "huggingface", "safetensors"]

Quantization = Literal["int8", "int8_bfloat16", "bfloat16", "float16"]

_QUANTIZATIONS: dict[Format, tuple[str, ...]] = {
    "ctranslate2": get_args(Quantization),
    "huggingface": (),
    "safetensors": ("bfloat16", "float16"),
}

_USAGE = {
    "ctranslate2": """\
import ctranslate2, sentencepiece
source, target = (sentencepiece.SentencePieceProcessor(f"{folder}/{{side}}.spm")
                  for side in ("source", "target"))
pieces = [{source_begins}source.encode("Hello.", out_type=str)]
found = ctranslate2.Translator("{folder}").translate_batch(
    pieces, {prefix}beam_size={beam_size}, length_penalty={length_penalty}, patience={beam_size})
print(target.decode(found[0].hypotheses[0]{from_there}))""",
    "huggingface": """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
model = AutoModelForSeq2SeqLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
found = model.generate(**tokenizer(["{named}Hello."], return_tensors="pt"))
print(tokenizer.batch_decode(found, skip_special_tokens=True))""",
    "safetensors": """\
import flax_transformer
model = flax_transformer.load("{folder}")
print(model.translate(["Hello."]))""",
}
"""Lines of Python that open what was written, and search as `translate` does; but others divide by
a power of the length, never as GNMT.

CTranslate2 stops at the first finished hypothesis that is best at that moment, and misses what a
few more steps would find; with `patience` it searches until none can be better.
"""


def export_model(
    model: TrainedModel,
    folder: Path,
    target: Format,
    quantization: Quantization | None = None,
) -> str:
    """Writes `model` to `folder`, whole or not at all; returns lines of Python that open it.

    quantization: type of the matrices in the files; by default float32

    Raises `UserError` where something lies at `folder`, and for a model that the target cannot
    express, before anything is written.
    """
    require_no_folder(folder)
    known = _QUANTIZATIONS[target]
    require(
        quantization in (None, *known),
        f"--quantization {quantization} is not for --format {target}: "
        + (f"use one of {', '.join(known)}" if known else "leave it out"),
    )
    # Copies, since torch, by which CTranslate2 rounds, wants arrays that can be written to.
    settings, params = model.config.model, jax.tree.map(np.array, jax.device_get(model.params))
    require(
        target == "safetensors" or isinstance(settings, TransformerConfig),
        f"{model.workdir} is a recurrent model, which {target} has none of: use --format "
        "safetensors",
    )
    if target == "huggingface":
        require_architecture(model)
    with whole_folder(folder) as partial:
        if target == "ctranslate2":
            assert isinstance(settings, TransformerConfig)
            spec = ctranslate2.specification(settings, params, *_pieces(model))
            ctranslate2.save(spec, partial, quantization)
            for name, content in zip(("source.spm", "target.spm"), _spm(model), strict=True):
                write_whole(partial / name, content)
        elif target == "huggingface":
            write_hugging_face(model, params, _spm(model), partial)
        else:
            _write_safetensors(model, partial, cast(StoredType, quantization or "float32"))
        card = model_card(model, target, quantization, _usage(model, target, folder.name))
        write_whole(partial / "README.md", card.encode())
    return _usage(model, target, str(folder))


def _usage(model: TrainedModel, target: Format, folder: str) -> str:
    tokenizer, search = model.tokenizer, model.config.decoding
    source, translation = (side.pieces(side.before) for side in (tokenizer, tokenizer.target))
    # They may begin with the names of the languages, which M2M-100's tokenizer in transformers puts
    # there by itself.
    return _USAGE[target].format(
        folder=folder,
        source_begins=f"{source} + " if source else "",
        prefix=f"target_prefix={[translation]},\n    " if translation else "",
        from_there=f"[{len(translation)}:]" if translation else "",
        named="" if translation else "".join(f"{symbol} " for symbol in source),
        beam_size=search.beam_size,
        length_penalty=search.length_penalty,
    )


def _pieces(model: TrainedModel) -> tuple[list[str], list[str]]:
    """What each id stands for in sources and in targets, all different."""
    every = range(model.tokenizer.vocabulary_size)
    return model.tokenizer.pieces(every), model.tokenizer.target.pieces(every)


def _spm(model: TrainedModel) -> tuple[bytes, bytes]:
    """The SentencePiece models of source and target, which are often the same."""
    tokenizer = model.tokenizer
    if isinstance(tokenizer, ImportedTokenizer):
        return tokenizer.spm
    return tokenizer.model, tokenizer.model


def _write_safetensors(model: TrainedModel, folder: Path, stored_as: StoredType) -> None:
    """Writes a folder that is read like the work directory, as far as it needs no run."""
    origin = Origin(model.steps, model.choice, model.progress)
    write_parameters_file(folder / PARAMETERS_FILE, model.params, origin, stored_as)
    # The run's, which may multiply in another type than this machine; but with its own search.
    decoding = dataclasses.replace(model.config.decoding, checkpoint="auto")
    run = load_config(model.workdir / CONFIG_FILE)
    save_config(dataclasses.replace(run, decoding=decoding), folder / CONFIG_FILE)
    write_whole(folder / TOKENIZER_FILE, model.tokenizer.model)
