"""A work directory from a folder of Hugging Face or of Marian: `import_model(folder, workdir)`.

The parameters are theirs, moved and never computed; in float32, as ours are.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from flax_transformer.checkpoints.progress import Progress
from flax_transformer.checkpoints.writing import write_parameters
from flax_transformer.config import (
    BatchConfig,
    Config,
    DecodingConfig,
    MeshConfig,
    TextFiles,
    TokenizerConfig,
    TransformerConfig,
)
from flax_transformer.config.json import save_config
from flax_transformer.errors import require
from flax_transformer.exchange.huggingface_config import TheirModel, read_config
from flax_transformer.exchange.huggingface_vocabulary import (
    NO_ROW,
    TheirVocabulary,
    read_vocabulary,
)
from flax_transformer.exchange.layout import their_name, their_shape, to_ours
from flax_transformer.exchange.marian_npz import find_npz, read_npz
from flax_transformer.exchange.tensor_files import read_json, read_tensors
from flax_transformer.files.whole_file import write_whole
from flax_transformer.files.whole_folder import require_no_folder, whole_folder
from flax_transformer.models.initialization import abstract_params, parameter_axes
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.text.tokenizer import BOS_ID, PAD_ID
from flax_transformer.text.vocabulary_file import load_tokenizer
from flax_transformer.workdir import CONFIG_FILE, TOKENIZER_FILE

NEVER = np.float32(-1e9)
"""The bias of a token that no translation holds."""

_LONGEST = 512
_SAME_AGAIN = (
    "embed_positions.weight", "embed_positions.weights", "embed_tokens.weight", "lm_head.weight",
    "final_logits_bias",
)  # fmt: skip
"""Ends of the names of tensors that are formulas, zeros, or others under a second name."""

Tensors = dict[str, np.ndarray]


class Imported(NamedTuple):
    """What was written, for a person."""

    kind: str
    config: Config
    parameters: int

    def __str__(self) -> str:
        model = self.config.model
        assert isinstance(model, TransformerConfig)
        return (
            f"{self.kind}, {self.parameters:,} parameters, {model.num_encoder_layers} + "
            f"{model.num_decoder_layers} layers of width {model.d_model}, "
            f"{self.config.tokenizer.vocabulary_size:,} pieces"
        )


def import_model(
    folder: Path,
    workdir: Path,
    source_language: str | None = None,
    target_language: str | None = None,
) -> Imported:
    """Writes the model in `folder` as a work directory, whole or not at all.

    folder: config.json, model.safetensors or pytorch_model.bin, and the vocabulary; or Marian's
            model.npz, *vocab*.yml, source.spm and target.spm
    source_language, target_language: codes that its texts begin with, as the model knows them

    Nothing in `folder` is executed. Raises `UserError` where it cannot be imported, and where
    something lies at `workdir`.
    """
    require_no_folder(workdir)
    require(folder.is_dir(), f"{folder} is not a folder")
    if npz := find_npz(folder):
        their, tensors = read_npz(npz)
    else:
        their, tensors = read_config(folder), read_tensors(folder)
    vocabulary = read_vocabulary(folder, their, source_language, target_language)
    config = Config(
        data=TextFiles(
            directory="data",
            source_language=source_language or "source",
            target_language=target_language or "target",
        ),
        tokenizer=TokenizerConfig(vocabulary_size=len(vocabulary.target_rows)),
        model=_settle(their, vocabulary, tensors, folder),
        batch=BatchConfig(rows=32, source_length=128, target_length=128),
        decoding=_decoding(folder, their),
    )
    params = _params(config, vocabulary, tensors, folder, their.kind == "marian_npz")
    with whole_folder(workdir) as partial:
        save_config(config, partial / CONFIG_FILE)
        write_whole(partial / TOKENIZER_FILE, vocabulary.file)
        tokenizer = load_tokenizer(partial / TOKENIZER_FILE, config.tokenizer.vocabulary_size)
        write_parameters(partial, 0, params, Progress(tokenizer.fingerprint))
    return Imported(their.kind, config, sum(leaf.size for leaf in jax.tree.leaves(params)))


def _settle(
    their: TheirModel, vocabulary: TheirVocabulary, tensors: Tensors, folder: Path
) -> TransformerConfig:
    """Returns the settings of the model, of which the tensors decide some.

    Biases that are all zero are no biases.
    """
    biases = [tensor for name, tensor in tensors.items() if name.endswith("_proj.bias")]
    logits_bias = tensors.get("final_logits_bias", np.zeros(1))
    hides = vocabulary.copies or NO_ROW in vocabulary.target_rows
    untied = their.raw.get("tie_word_embeddings", True) is False
    require(
        not untied or "lm_head.weight" in tensors,
        f"{folder} has no tensor lm_head.weight, though config.json has tie_word_embeddings false",
    )
    return dataclasses.replace(
        their.model,
        attention_biases=any(np.any(bias) for bias in biases),
        output_bias="fixed" if hides or np.any(logits_bias) else "none",
        own_output_table=untied,
    )


def _decoding(folder: Path, their: TheirModel) -> DecodingConfig:
    """Returns the search that the folder recommends, as far as it does."""
    path = folder / "generation_config.json"
    recommended = their.raw | (read_json(path) if path.is_file() else {})
    longest = their.raw.get("max_position_embeddings")
    beams, penalty = recommended.get("num_beams"), recommended.get("length_penalty")
    return DecodingConfig(
        beam_size=beams if type(beams) is int and 1 <= beams <= 100 else 4,
        length_normalization="power",
        length_penalty=float(penalty)
        if isinstance(penalty, (int, float)) and penalty >= 0
        else 1.0,
        max_source_length=min(longest, _LONGEST) if type(longest) is int else _LONGEST,
        average_checkpoints=1,
    )


class _Tensors:
    """The tensors of a folder, which are asked for one by one."""

    def __init__(self, folder: Path, tensors: Tensors):
        self._folder = folder
        self._tensors = tensors
        self.waiting = set(tensors)

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the tensor `name` in float32; raises `UserError` where it is not of `shape`."""
        require(
            name in self._tensors,
            f"{self._folder} has no tensor {name}: copy the whole folder again",
        )
        self.waiting.discard(name)
        found = self._tensors[name]
        require(
            found.shape == shape,
            f"{self._folder}: tensor {name} has the shape {found.shape}, but config.json makes it "
            f"{shape}: these files are not of one model",
        )
        require(
            np.issubdtype(found.dtype, np.floating) or found.dtype.name == "bfloat16",
            f"{self._folder}: tensor {name} holds {found.dtype}, but parameters are floating-point "
            "numbers: import a model that is not quantised",
        )
        return found.astype(np.float32)


def _params(
    config: Config, vocabulary: TheirVocabulary, tensors: Tensors, folder: Path, is_npz: bool
) -> Any:
    """Returns our parameters, float32; raises `UserError` for what is missing or does not fit."""
    model = config.model
    assert isinstance(model, TransformerConfig)
    theirs = _Tensors(folder, tensors)
    # Marian has no padding among the words that it chooses from, transformers has.
    hidden = [BOS_ID] * vocabulary.copies + [PAD_ID] * is_npz

    def take(path: tuple[str, ...], layer: int | None, letters: str, shape: tuple[int, ...]):
        name = their_name(path, layer, model.own_source_table)
        return to_ours(theirs.take(name, their_shape(letters, shape)), letters, shape)

    def leaf(path: tuple[str, ...], letters: str, shape: tuple[int, ...]) -> np.ndarray:
        if path == ("output", "bias"):
            return _logits_bias(theirs, vocabulary, "final_logits_bias" in tensors, hidden)
        if letters == "vd":
            is_source = path[0] == "source_embedding"
            rows = vocabulary.source_rows if is_source else vocabulary.target_rows
            table = take(path, None, letters, (max(rows) + 1, shape[1]))
            return np.append(table, np.zeros_like(table[:1]), axis=0)[rows]  # the last for NO_ROW
        if path[0] not in ("encoder", "decoder"):
            return take(path, None, letters, shape)
        layers = [take(path, layer, letters[1:], shape[1:]) for layer in range(shape[0])]
        return np.stack(layers)

    found = _tree(config, leaf)
    no_biases = () if model.attention_biases else ("_proj.bias",)
    unknown = sorted(
        name for name in theirs.waiting if not name.endswith((*_SAME_AGAIN, *no_biases))
    )
    require(
        not unknown,
        f"{folder} has {len(unknown)} tensors that no model here has, such as {unknown[:1]}: "
        "it is another architecture",
    )
    return found


def _logits_bias(
    theirs: _Tensors, vocabulary: TheirVocabulary, stored: bool, hidden: Sequence[int]
) -> np.ndarray:
    """Returns the bias (v,) of every token; those that no translation holds get `NEVER`."""
    rows = vocabulary.target_rows
    count = max(rows) + 1
    bias = np.zeros(count, np.float32)
    if stored:
        bias = theirs.take("final_logits_bias", (1, count))[0]
    found = np.append(bias, NEVER)[rows]  # the last for NO_ROW
    found[np.array(hidden, int)] = NEVER
    return found


def _tree(config: Config, leaf: Callable[[tuple[str, ...], str, tuple[int, ...]], Any]) -> Any:
    """Returns a tree of our parameters, each made by `leaf` of its path, letters and shape."""
    shapes = abstract_params(config, build_mesh(MeshConfig()))
    axes = iter(jax.tree.leaves(parameter_axes(config), is_leaf=lambda x: isinstance(x, tuple)))
    return jax.tree_util.tree_map_with_path(
        lambda path, each: leaf(
            tuple(key.key for key in path), "".join(map(str, next(axes))), each.shape
        ),
        shapes,
    )
