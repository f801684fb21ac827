"""What a Hugging Face `config.json` says of a model, as our settings.

Read are MarianMT models (OPUS-MT) and those of M2M-100's architecture (NLLB too). A setting that
this project has no counterpart for is refused by name.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from flax_transformer.config import TransformerConfig
from flax_transformer.errors import require
from flax_transformer.exchange.tensor_files import read_json

_KINDS: dict[str, dict[str, Any]] = {
    "marian": {"norm": "post", "positions": "sinusoidal"},
    "m2m_100": {"norm": "pre", "positions": "fairseq"},
}
_ACTIVATIONS: dict[str, Any] = {"relu": "relu", "gelu": "gelu", "swish": "swish", "silu": "swish"}
_REFUSED = {
    "normalize_embedding": (False, None),
    "add_final_layer_norm": (False, None),
    "extra_pos_embeddings": (0, None),
    "static_position_embeddings": (True, None),
    "normalize_before": (False, None),
}
"""Settings of Marian's conversion, with the values that change nothing."""
_MOST = {"layers": 1_000, "attention_heads": 1_000, "ffn_dim": 1 << 18}


class TheirModel(NamedTuple):
    """What `config.json` says.

    kind:             "marian" or "m2m_100"
    model:            what follows for ours, before the tensors are known
    source_size:      rows of the source's table, and target_size of the target's
    pad, eos, start:  their ids; `start` is what the decoder begins with
    raw:              all of it
    """

    kind: str
    model: TransformerConfig
    source_size: int
    target_size: int
    pad: int
    eos: int
    start: int
    raw: dict[str, Any]


def read_config(folder: Path) -> TheirModel:
    """Reads `folder`/config.json; raises `UserError` for what is missing, absurd or unknown."""
    path = folder / "config.json"
    raw = read_json(path)
    kind = str(raw.get("model_type"))
    require(
        kind in _KINDS,
        f"{path} has the model_type {kind!r}, but only {' and '.join(_KINDS)} can be imported",
    )
    for name, harmless in _REFUSED.items():
        if kind == "marian" and name in raw:
            require(
                raw[name] in harmless, f"{path} has {name} {raw[name]!r}, which no model here has"
            )

    def number(name: str, most: int, least: int = 1) -> int:
        value = raw.get(name)
        require(
            type(value) is int and least <= value <= most,
            f"{path} has {name} {value!r}, but a model has a whole number from {least} to {most:,}",
        )
        return int(value)  # type: ignore[arg-type]

    def both(name: str) -> int:
        sides = [number(f"{side}_{name}", _MOST[name]) for side in ("encoder", "decoder")]
        require(
            sides[0] == sides[1],
            f"{path} has encoder_{name} {sides[0]} and decoder_{name} {sides[1]}, but here encoder "
            "and decoder are equally wide",
        )
        return sides[0]

    source_size = number("vocab_size", 1 << 24, 5)
    target_size = source_size
    if raw.get("share_encoder_decoder_embeddings", True) is False:
        target_size = number("decoder_vocab_size", 1 << 24, 5)
    activation = str(raw.get("activation_function"))
    known = ", ".join(_ACTIVATIONS)
    require(
        activation in _ACTIVATIONS,
        f"{path} has the activation_function {activation!r}, but there is: {known}",
    )
    model = TransformerConfig(
        num_encoder_layers=number("encoder_layers", _MOST["layers"]),
        num_decoder_layers=number("decoder_layers", _MOST["layers"]),
        d_model=number("d_model", 1 << 16),
        num_heads=both("attention_heads"),
        d_ff=both("ffn_dim"),
        dropout=_share(path, raw),
        activation=_ACTIVATIONS[activation],
        scale_embedding=bool(raw.get("scale_embedding", kind == "m2m_100")),
        norm_epsilon=float(raw.get("layer_norm_eps", 1e-5)),
        own_source_table=raw.get("share_encoder_decoder_embeddings", True) is False,
        **_KINDS[kind],
    )
    most = target_size - 1
    pad, eos = number("pad_token_id", most, 0), number("eos_token_id", most, 0)
    start = number("decoder_start_token_id", most, 0)
    require(
        kind == "marian" or pad == 1,
        f"{path} has pad_token_id {pad}, but positions of {kind} are counted from pad 1",
    )
    return TheirModel(kind, model, source_size, target_size, pad, eos, start, raw)


def _share(path: Path, raw: dict[str, Any]) -> float:
    value = raw.get("dropout", 0.1)
    require(
        isinstance(value, (int, float)) and 0 <= value < 1,
        f"{path} has dropout {json.dumps(value)}, but it is a share: from 0 to below 1",
    )
    return float(value)
