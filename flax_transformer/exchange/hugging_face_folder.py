"""Writes a folder that transformers opens, of MarianMT or, for fairseq's positions, of M2M-100.

Both have biases in attention, which are zeros for a model without; their norms add 1e-5 where ours
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
from flax_transformer.exchange.m2m_vocabulary import SPM, m2m_tokenizer_files
from flax_transformer.exchange.piece_order import PieceOrder
from flax_transformer.files.whole_file import write_whole
from flax_transformer.models.initialization import parameter_axes
from flax_transformer.translation.trained_model import TrainedModel

_ATTENTIONS = {"encoder": ("attention",), "decoder": ("self_attention", "cross_attention")}
_LONGEST = 512
_OTHERS = "use --format ctranslate2 or safetensors"


def require_architecture(model: TrainedModel) -> None:
    """Raises `UserError` where neither MarianMT nor M2M-100 can express `model`."""
    settings = model.config.model
    assert isinstance(settings, TransformerConfig)
    name, needed = _needed(settings)
    for setting, value in needed.items():
        found = getattr(settings, setting)
        require(
            found == value,
            f"{model.workdir} has model.{setting} {found}, but {name} of transformers has {value}: "
            f"{_OTHERS}",
        )
    if _is_m2m(settings):
        _require_m2m(model)


def _is_m2m(settings: TransformerConfig) -> bool:
    return settings.positions == "fairseq"


def _needed(settings: TransformerConfig) -> tuple[str, dict[str, object]]:
    """The architecture that is nearest to a model, and the settings that it asks for."""
    whole = dict.fromkeys(("encoder_heads", "decoder_heads", "cross_heads"))
    if _is_m2m(settings):
        return "M2M-100", {"norm": "pre", "own_source_table": False} | whole
    return "MarianMT", {"norm": "post", "positions": "sinusoidal"} | whole


def _require_m2m(model: TrainedModel) -> None:
    """Raises `UserError` for a vocabulary or a bias of the logits that M2M-100 has not."""
    order = PieceOrder(model.tokenizer)
    require(
        m2m_tokenizer_files(model.tokenizer, order.target_pieces) is not None,
        f"{model.workdir} has a vocabulary that is none of M2M-100 or NLLB, so that no tokenizer "
        f"of transformers goes with model.positions fairseq: {_OTHERS}",
    )
    bias = model.params.get("output", {}).get("bias")
    require(
        bias is None or not np.any(np.asarray(bias)[np.array(order.target)]),
        f"{model.workdir} has model.output_bias {model.config.model.output_bias}, but M2M-100 of "  # type: ignore[union-attr]
        f"transformers adds nothing to the logits: {_OTHERS}",
    )


def write_hugging_face(
    model: TrainedModel, params: Any, spm: tuple[bytes, bytes], folder: Path
) -> None:
    """Writes tensors, settings, search and tokenizer.

    params: of `model`, on the host
    spm:    the SentencePiece models of source and target
    """
    from safetensors.numpy import save

    settings = model.config.model
    assert isinstance(settings, TransformerConfig)
    order = PieceOrder(model.tokenizer)
    tensors = _tensors(model.config, params, order)
    config = _config(model.config, order)
    generation = _generation(model.config, config)
    if _is_m2m(settings):
        del tensors["final_logits_bias"]
        files = m2m_tokenizer_files(model.tokenizer, order.target_pieces) or {}
        write_whole(folder / SPM, spm[0])
        (language,) = model.tokenizer.target.pieces(model.tokenizer.target.before)
        generation |= {"forced_bos_token_id": order.target_pieces[language]}
    else:
        files = _marian_tokenizer_files(settings, order)
        generation |= {"bad_words_ids": [[i] for i in sorted({order.pad, order.start})]}
        for name, content in zip(("source.spm", "target.spm"), spm, strict=True):
            write_whole(folder / name, content)
    write_whole(folder / "model.safetensors", save(tensors, {"format": "pt"}))
    files |= {"config.json": config, "generation_config.json": generation}
    for name, values in files.items():
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        write_whole(folder / name, text.encode())


def _generation(config: Config, theirs: dict[str, Any]) -> dict[str, Any]:
    """The search that is recommended."""
    same = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    return {name: theirs[name] for name in same} | {
        "num_beams": config.decoding.beam_size,
        "length_penalty": config.decoding.length_penalty,
        "max_length": min(_LONGEST, theirs["max_position_embeddings"]),
    }


def _marian_tokenizer_files(settings: TransformerConfig, order: PieceOrder) -> dict[str, Any]:
    """The contents of the JSON files of MarianTokenizer, by name."""
    separate = settings.own_source_table
    tokenizer = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": separate}
    files = {
        "tokenizer_config.json": tokenizer | {"source_lang": None, "target_lang": None},
        "vocab.json": order.source_pieces,
    }
    return files | ({"target_vocab.json": order.target_pieces} if separate else {})


def _tensors(config: Config, params: Any, order: PieceOrder) -> dict[str, np.ndarray]:
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
    """Biases that they have and this model has not."""
    zeros: dict[str, Any] = {"final_logits_bias": np.zeros((1, size), np.float32)}
    for name, tensor in found.items():
        if name.endswith("_proj.weight"):
            zeros[name.replace(".weight", ".bias")] = np.zeros(len(tensor), np.float32)
    return {name: tensor for name, tensor in zeros.items() if name not in found}


def _config(config: Config, order: PieceOrder) -> dict[str, Any]:
    model = config.model
    assert isinstance(model, TransformerConfig)
    common = {
        "vocab_size": len(order.source),
        "d_model": model.d_model,
        "encoder_layers": model.num_encoder_layers,
        "decoder_layers": model.num_decoder_layers,
        "encoder_attention_heads": model.num_heads,
        "decoder_attention_heads": model.num_heads,
        "encoder_ffn_dim": model.d_ff,
        "decoder_ffn_dim": model.d_ff,
        "activation_function": model.activation,
        "dropout": model.dropout,
        "attention_dropout": 0.0,
        "scale_embedding": model.scale_embedding,
        "layer_norm_eps": model.norm_epsilon,
        "max_position_embeddings": config.decoding.max_source_length,
        "tie_word_embeddings": not model.own_output_table,
        "pad_token_id": order.pad,
        "eos_token_id": order.eos,
        "decoder_start_token_id": order.start,
        "is_encoder_decoder": True,
    }
    if _is_m2m(model):
        own = {"architectures": ["M2M100ForConditionalGeneration"], "model_type": "m2m_100"}
        return own | common | {"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        **common,
        "decoder_vocab_size": len(order.target),
        "share_encoder_decoder_embeddings": not model.own_source_table,
        "forced_eos_token_id": order.eos,
    }
