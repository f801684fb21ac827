"""Writes a MarianMT folder, as transformers opens it.

MarianMT has biases in attention, which are zeros for a model without; its norms add 1e-5 where ours
add 1e-6, which config.json tells to nobody but us.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_transformer.config import Config, TransformerConfig
from flax_transformer.errors import require
from flax_transformer.exchange.layout import their_name, to_theirs
from flax_transformer.files.whole_file import write_whole
from flax_transformer.models.initialization import parameter_axes
from flax_transformer.text.imported_tokenizer import ImportedTokenizer
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID
from flax_transformer.translation.trained_model import TrainedModel

_ATTENTIONS = {"encoder": ("attention",), "decoder": ("self_attention", "cross_attention")}
_LONGEST = 512


def require_marian(model: TrainedModel) -> None:
    """Raises `UserError` where MarianMT cannot express `model`."""
    settings = model.config.model
    assert isinstance(settings, TransformerConfig)
    wrong: dict[str, tuple[object, object]] = {
        "model.norm": (settings.norm, "post"),
        "model.positions": (settings.positions, "sinusoidal"),
    }
    for heads in ("encoder_heads", "decoder_heads", "cross_heads"):
        wrong[f"model.{heads}"] = (getattr(settings, heads), None)
    for name, (value, needed) in wrong.items():
        require(
            value == needed,
            f"{model.workdir} has {name} {value}, but MarianMT of transformers has {needed}: use "
            "--format ctranslate2 or safetensors",
        )


def write_marian(model: TrainedModel, params: Any, folder: Path) -> None:
    """Writes all but the SentencePiece models: tensors, settings, vocabulary and search."""
    from safetensors.numpy import save

    order = _Order(model)
    tensors = _tensors(model.config, params, order)
    write_whole(folder / "model.safetensors", save(tensors, {"format": "pt"}))
    config = _config(model.config, order)
    languages = {"source_lang": None, "target_lang": None}
    separate = not config["share_encoder_decoder_embeddings"]
    tokenizer = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": separate, **languages}
    decoding = model.config.decoding
    generation = {
        name: config[name] for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    } | {
        "num_beams": decoding.beam_size,
        "length_penalty": decoding.length_penalty,
        "max_length": _LONGEST,
        "bad_words_ids": [[i] for i in sorted({config["pad_token_id"], order.start})],
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer_config.json", tokenizer)
    _write_json(folder / "generation_config.json", generation)
    _write_json(folder / "vocab.json", order.source_pieces)
    if separate:
        _write_json(folder / "target_vocab.json", order.target_pieces)


class _Order:
    """Their numbers of tokens: those that the model came with, or ours.

    source, target:               our id for each of theirs
    source_pieces, target_pieces: their id of each piece
    """

    def __init__(self, model: TrainedModel):
        tokenizer, size = model.tokenizer, model.tokenizer.vocabulary_size
        rows = [list(range(size))] * 2
        if isinstance(tokenizer, ImportedTokenizer) and tokenizer.their_ids is not None:
            rows = tokenizer.their_ids
        self.source, self.target = (_inverse(own) for own in rows)
        self.source_pieces, self.target_pieces = (
            {piece: i for i, piece in enumerate(side.pieces(own)) if piece[:8] != "<unused "}
            for side, own in (
                (tokenizer, self.source),
                (tokenizer.target, self.target),
            )
        )
        self.pad, self.eos, self.start = (rows[1][i] for i in (PAD_ID, EOS_ID, BOS_ID))


def _inverse(rows: list[int]) -> list[int]:
    """Our id for each of theirs; where BOS is a copy of another row, that one's."""
    found = dict.fromkeys(range(max(rows) + 1), PAD_ID)
    for ours, theirs in enumerate(rows):
        if theirs >= 0 and not (ours == BOS_ID and theirs in rows[:BOS_ID]):
            found[theirs] = ours
    return [found[i] for i in range(len(found))]


def _tensors(config: Config, params: Any, order: _Order) -> dict[str, np.ndarray]:
    model = config.model
    assert isinstance(model, TransformerConfig)
    axes = iter(jax.tree.leaves(parameter_axes(config), is_leaf=lambda x: isinstance(x, tuple)))
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = tuple(key.key for key in path)
        letters = "".join(map(str, next(axes)))
        own = model.own_source_table
        if letters[0] == "v":
            rows = order.source if names[0] == "source_embedding" else order.target
            name = their_name(names, None, own)
            taken = np.asarray(leaf, np.float32)[np.array(rows)]
            found[name] = taken[None] if letters == "v" else to_theirs(taken, letters)
        elif names[0] in _ATTENTIONS:
            for layer in range(len(leaf)):
                found[their_name(names, layer, own)] = to_theirs(leaf[layer], letters[1:])
        else:
            found[their_name(names, None, own)] = to_theirs(leaf, letters)
    return found | _zeros(model, found, len(order.target))


def _zeros(
    model: TransformerConfig, found: dict[str, np.ndarray], size: int
) -> dict[str, np.ndarray]:
    """Biases that MarianMT has and this model has not."""
    zeros: dict[str, Any] = {"final_logits_bias": np.zeros((1, size), np.float32)}
    for name, tensor in found.items():
        if name.endswith("_proj.weight"):
            zeros[name.replace(".weight", ".bias")] = np.zeros(len(tensor), np.float32)
    return {name: tensor for name, tensor in zeros.items() if name not in found}


def _config(config: Config, order: _Order) -> dict[str, Any]:
    model = config.model
    assert isinstance(model, TransformerConfig)
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "vocab_size": len(order.source),
        "decoder_vocab_size": len(order.target),
        "d_model": model.d_model,
        "encoder_layers": model.num_encoder_layers,
        "decoder_layers": model.num_decoder_layers,
        "encoder_attention_heads": model.num_heads,
        "decoder_attention_heads": model.num_heads,
        "encoder_ffn_dim": model.d_ff,
        "decoder_ffn_dim": model.d_ff,
        "activation_function": model.activation,
        "dropout": model.dropout,
        "scale_embedding": model.scale_embedding,
        "layer_norm_eps": model.norm_epsilon,
        "max_position_embeddings": config.decoding.max_source_length,
        "share_encoder_decoder_embeddings": not model.own_source_table,
        "tie_word_embeddings": not model.own_output_table,
        "pad_token_id": order.pad,
        "eos_token_id": order.eos,
        "decoder_start_token_id": order.start,
        "forced_eos_token_id": order.eos,
        "is_encoder_decoder": True,
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())
