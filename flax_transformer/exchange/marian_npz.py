"""Models as Marian writes them (Junczys-Dowmunt et al. 2018): one .npz, and vocabularies beside it.

The tensors are given the names of Hugging Face's MarianMT, to which they correspond one to one.
Marian begins a target with a vector of zeros; here, as there, that is the row of a <pad> behind the
vocabulary.
"""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flax_transformer.config import TransformerConfig
from flax_transformer.errors import UserError, require
from flax_transformer.exchange.huggingface_config import TheirModel
from flax_transformer.files.ordinary_file import read_ordinary

_SETTINGS = "special:model.yml"
_NEEDED: dict[str, Any] = {
    "type": "transformer",
    "transformer-decoder-autoreg": "self-attention",
    "transformer-no-projection": False,
    "transformer-train-position-embeddings": False,
    "transformer-postprocess-emb": ("d", ""),
    "transformer-ffn-depth": 2,
    "transformer-ffn-activation": ("relu", "swish"),
    "transformer-depth-scaling": False,
    "transformer-aan-depth": None,
    "ulr": False,
    "factors-combine": ("sum", None),
}
_ORDERS = {("", "dan", ""): "post", ("n", "da", "n"): "pre"}
_MOST_YAML = 1 << 26
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)")


def find_npz(folder: Path) -> Path | None:
    """Returns the model in a folder of Marian's; None where it is no such folder.

    Raises `UserError` where there are several.
    """
    found = sorted(folder.glob("*.npz"))
    require(
        len(found) < 2,
        f"{folder} holds {len(found)} .npz files: leave the one to import, such as that which was "
        "best on the validation set",
    )
    return found[0] if found and not (folder / "config.json").exists() else None


def read_npz(path: Path) -> tuple[TheirModel, dict[str, np.ndarray]]:
    """Returns the settings and the tensors of a model of Marian's, under Hugging Face's names.

    Raises `UserError` for a file that is damaged, and for what no model here has.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            tensors = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a model of Marian's, or damaged ({error})") from None
    require(
        _SETTINGS in tensors, f"{path} holds no {_SETTINGS}: is it a model that Marian has written?"
    )
    settings = _settings(tensors.pop(_SETTINGS), path)
    tensors = {name: tensor for name, tensor in tensors.items() if name[:8] != "special:"}
    named = dict(_renamed(tensors, path))
    own_source = "encoder_Wemb" in tensors
    tables = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
    source, target = tables if own_source else ("model.shared.weight",) * 2
    for name in {source, target}:
        require(name in named, f"{path} has no table of embeddings: is it a whole model?")
        named[name] = np.append(named[name], np.zeros_like(named[name][:1]), axis=0)
    for name in ("lm_head.weight", "final_logits_bias"):
        if name in named:
            rows = [(0, 0)] * named[name].ndim
            rows[0 if name == "lm_head.weight" else 1] = (0, 1)
            named[name] = np.pad(named[name], rows)
    sizes = len(named[source]), len(named[target])
    return _model(settings, path, named, sizes), named


def _model(
    settings: dict[str, Any], path: Path, named: dict[str, np.ndarray], sizes: tuple[int, int]
) -> TheirModel:
    for option, needed in _NEEDED.items():
        allowed = needed if isinstance(needed, tuple) else (needed,)
        value = settings.get(option, allowed[0])
        require(
            value in allowed,
            f"{path} was trained with --{option} {value}, which no model here has",
        )
    order = tuple(
        str(settings.get(f"transformer-{name}") or "")
        for name in ("preprocess", "postprocess", "postprocess-top")
    )
    require(
        order in _ORDERS,
        f"{path} has its norms at other places than before or after every sub-layer (transformer-"
        f"preprocess, -postprocess, -postprocess-top are {order})",
    )
    for option in ("enc-depth", "dec-depth", "transformer-heads"):
        value = settings.get(option)
        require(
            type(value) is int and 1 <= value <= 1000,
            f"{path} has {option} {value!r}, but a model has 1 to 1,000",
        )
    own_output = "lm_head.weight" in named
    model = TransformerConfig(
        num_encoder_layers=settings["enc-depth"],
        num_decoder_layers=settings["dec-depth"],
        d_model=named[min(name for name in named if "embed" in name or "shared" in name)].shape[1],
        num_heads=settings["transformer-heads"],
        d_ff=len(named.get("model.encoder.layers.0.fc1.bias", [])) or 1,
        activation=settings.get("transformer-ffn-activation", "swish"),
        norm=_ORDERS[order],  # type: ignore[arg-type, index]
        norm_epsilon=1e-9,
        own_source_table="model.encoder.embed_tokens.weight" in named,
    )
    pad = sizes[1] - 1
    require(
        sizes[0] == sizes[1],
        f"{path} has tables of {sizes[0] - 1:,} and {sizes[1] - 1:,} rows: only vocabularies of "
        "one size can be imported",
    )
    raw = {"tie_word_embeddings": not own_output, "length_penalty": settings.get("normalize", 1.0)}
    return TheirModel("marian_npz", model, sizes[0], sizes[1], pad, 0, pad, raw)


def _renamed(tensors: dict[str, np.ndarray], path: Path) -> Iterator[tuple[str, np.ndarray]]:
    for name, tensor in tensors.items():
        new = _new_name(name)
        require(new is not None, f"{path} has a tensor {name}, which no model here has")
        if new is None or new == "":
            continue
        is_matrix = new.endswith(("_proj.weight", "fc1.weight", "fc2.weight"))
        if is_matrix or name.endswith("logit_out_W"):
            tensor = tensor.T  # (input, output) there
        elif new.endswith((".bias", "norm.weight")):
            tensor = tensor.reshape(-1)
        yield new, tensor


_WHOLE = {
    "Wemb": "model.shared.weight",
    "encoder_Wemb": "model.encoder.embed_tokens.weight",
    "decoder_Wemb": "model.decoder.embed_tokens.weight",
    "decoder_ff_logit_out_b": "final_logits_bias",
    "decoder_ff_logit_out_W": "lm_head.weight",
    "decoder_ff_logit_out_Wt": "lm_head.weight",
    "Wpos": "",  # sines, which are computed
}
_LAYER = re.compile(r"(encoder|decoder)_l(\d+)_(self|context|ffn)_(.+)")
_TOP = re.compile(r"(encoder|decoder)_top_ln_(scale|bias)(_pre)?")
_PART = re.compile(r"(?:(W|b)([qkvo12])|(?:Wo|ffn)_ln_(scale|bias)(?:_pre)?)")
_ATTENTIONS = {"self": "self_attn", "context": "encoder_attn"}
_KINDS = {"scale": "weight", "bias": "bias", "W": "weight", "b": "bias"}
_PROJECTIONS = {
    "q": "q_proj",
    "k": "k_proj",
    "v": "v_proj",
    "o": "out_proj",
    "1": "fc1",
    "2": "fc2",
}


def _new_name(name: str) -> str | None:
    """The name of a tensor at Hugging Face's; None where there is none, "" where none is needed."""
    if name in _WHOLE:
        return _WHOLE[name]
    if top := _TOP.fullmatch(name):
        return f"model.{top[1]}.layer_norm.{_KINDS[top[2]]}"
    layer = _LAYER.fullmatch(name)
    part = _PART.fullmatch(layer[4]) if layer else None
    if layer is None or part is None:
        return None
    place = f"model.{layer[1]}.layers.{int(layer[2]) - 1}"
    attention = _ATTENTIONS.get(layer[3])
    if part[3]:
        norm = f"{attention}_layer_norm" if attention else "final_layer_norm"
        return f"{place}.{norm}.{_KINDS[part[3]]}"
    projection = f"{_PROJECTIONS[part[2]]}.{_KINDS[part[1]]}"
    return f"{place}.{attention}.{projection}" if attention else f"{place}.{projection}"


def _settings(array: np.ndarray, path: Path) -> dict[str, Any]:
    """The options that a model was trained with, which it keeps as YAML."""
    import yaml

    try:
        found = yaml.safe_load(array.astype(np.uint8).tobytes().rstrip(b"\0"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: its {_SETTINGS} is not YAML ({error})") from None
    require(isinstance(found, dict), f"{path}: its {_SETTINGS} is not a list of options")
    return found


def read_yaml_vocabulary(path: Path) -> dict[str, int]:
    """Returns a vocabulary of Marian's, a line for each piece, with <pad> behind it.

    Line by line, as YAML's own rules would take some pieces, such as "no" and "~", for values.
    """
    try:
        text = read_ordinary(path, _MOST_YAML).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    found: dict[str, int] = {}
    key = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line == "---":
            continue
        if line.startswith("? "):
            key = line[2:]
            continue
        piece, _, value = (key, "", line[1:]) if key is not None else line.rpartition(":")
        key = None
        require(
            value.strip().isdigit(),
            f"{path}, line {number}: {line[:40]!r} is not a piece and its number: copy it again",
        )
        found[_unquoted(str(piece))] = int(value)
    return found | {"<pad>": len(found)}


def _unquoted(piece: str) -> str:
    if piece[:1] == piece[-1:] == "'" and len(piece) > 1:
        return piece[1:-1].replace("''", "'")
    if piece[:1] == piece[-1:] == '"' and len(piece) > 1:
        return _ESCAPE.sub(_character, piece[1:-1])
    return piece


def _character(escape: re.Match) -> str:
    code = escape[1]
    if len(code) > 1:
        return chr(int(code[1:], 16))
    return {"t": "\t", "n": "\n", "r": "\r", "0": "\0", "e": "\x1b"}.get(code, code)


def vocabulary_paths(folder: Path) -> list[Path]:
    """The vocabularies of source and target, of which there may be one for both.

    Raises `UserError` where there are none, or more than two.
    """
    found = sorted(folder.glob("*vocab*.yml")) + sorted(folder.glob("*vocab*.yaml"))
    require(
        1 <= len(found) <= 2,
        f"{folder} holds {len(found)} vocabularies (*vocab*.yml), but a model has one, or one for "
        "each language, the source's first by name",
    )
    return [found[0], found[-1]]
