"""A work directory's model for others: `export_model(model, folder, "huggingface")`.

ctranslate2  opened by `ctranslate2.Translator`; every Transformer, quantised or not
huggingface  a MarianMT folder for transformers, with tokenizer and search; post-norm alone
safetensors  our own names, settings and vocabulary; every model
"""

from pathlib import Path
from typing import Literal

import jax
import numpy as np

from flax_transformer.config import TransformerConfig
from flax_transformer.config.json import save_config
from flax_transformer.errors import require
from flax_transformer.exchange import ctranslate2
from flax_transformer.exchange.hugging_face_folder import require_marian, write_marian
from flax_transformer.exchange.model_card import model_card
from flax_transformer.files.whole_file import write_whole
from flax_transformer.files.whole_folder import require_no_folder, whole_folder
from flax_transformer.text.imported_tokenizer import ImportedTokenizer
from flax_transformer.translation.trained_model import TrainedModel
from flax_transformer.workdir import CONFIG_FILE, TOKENIZER_FILE

Format = Literal["ctranslate2", "huggingface", "safetensors"]

_USAGE = {
    "ctranslate2": """\
import ctranslate2, sentencepiece
source, target = (sentencepiece.SentencePieceProcessor(f"{folder}/{{side}}.spm")
                  for side in ("source", "target"))
pieces = [source.encode("Hello.", out_type=str)]
found = ctranslate2.Translator("{folder}").translate_batch(pieces)
print(target.decode(found[0].hypotheses[0]))""",
    "huggingface": """\
from transformers import MarianMTModel, MarianTokenizer
model = MarianMTModel.from_pretrained("{folder}")
tokenizer = MarianTokenizer.from_pretrained("{folder}")
found = model.generate(**tokenizer(["Hello."], return_tensors="pt"))
print(tokenizer.batch_decode(found, skip_special_tokens=True))""",
    "safetensors": """\
import safetensors.numpy
params = safetensors.numpy.load_file("{folder}/model.safetensors")
print(params["embedding.table"].shape)""",
}
"""Lines of Python that open what was written."""


def export_model(
    model: TrainedModel,
    folder: Path,
    target: Format,
    quantization: ctranslate2.Quantization | None = None,
) -> str:
    """Writes `model` to `folder`, whole or not at all; returns lines of Python that open it.

    quantization: of the matrices, for ctranslate2

    Raises `UserError` where something lies at `folder`, and for a model that the target cannot
    express, before anything is written.
    """
    require_no_folder(folder)
    require(
        quantization is None or target == "ctranslate2",
        f"--quantization {quantization} is for --format ctranslate2: leave it out",
    )
    settings, params = model.config.model, jax.device_get(model.params)
    require(
        target == "safetensors" or isinstance(settings, TransformerConfig),
        f"{model.workdir} is a recurrent model, which {target} has none of: use --format "
        "safetensors",
    )
    if target == "huggingface":
        require_marian(model)
    with whole_folder(folder) as partial:
        if target == "ctranslate2":
            assert isinstance(settings, TransformerConfig)
            spec = ctranslate2.specification(settings, params, *_pieces(model))
            ctranslate2.save(spec, partial, quantization)
            _write_spm(model, partial)
        elif target == "huggingface":
            write_marian(model, params, partial)
            _write_spm(model, partial)
        else:
            _write_safetensors(model, params, partial)
        card = model_card(model, target, quantization, _USAGE[target].format(folder=folder.name))
        write_whole(partial / "README.md", card.encode())
    return _USAGE[target].format(folder=folder)


def _pieces(model: TrainedModel) -> tuple[list[str], list[str]]:
    """What each id stands for in sources and in targets, all different."""
    every = range(model.tokenizer.vocabulary_size)
    return model.tokenizer.pieces(every), model.tokenizer.target.pieces(every)


def _write_spm(model: TrainedModel, folder: Path) -> None:
    """Writes the SentencePiece models of source and target, which are often the same."""
    for name, content in zip(("source.spm", "target.spm"), spm_of(model), strict=True):
        write_whole(folder / name, content)


def spm_of(model: TrainedModel) -> tuple[bytes, bytes]:
    tokenizer = model.tokenizer
    if isinstance(tokenizer, ImportedTokenizer):
        return tokenizer.spm
    return tokenizer.model, tokenizer.model


def _write_safetensors(model: TrainedModel, params, folder: Path) -> None:
    """Writes the parameters under our names, and what they need to be read."""
    from safetensors.numpy import save

    leaves = jax.tree_util.tree_leaves_with_path(params)
    tensors = {
        ".".join(key.key for key in path): np.ascontiguousarray(leaf) for path, leaf in leaves
    }
    write_whole(folder / "model.safetensors", save(tensors, {"format": "flax_transformer"}))
    save_config(model.config, folder / CONFIG_FILE)
    write_whole(folder / TOKENIZER_FILE, model.tokenizer.model)
