"""What a Hugging Face `config.json` says of a model, as our settings.

Read are MarianMT models (OPUS-MT) and those of M2M-100's architecture (NLLB too). A setting that
this project has no counterpart for is refused by name.
"""

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
_REFUSED: dict[str, tuple[object, ...]] = {
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


class _Settings:
    """The values of a config.json, each checked where it is asked for."""

    def __init__(self, path: Path):
        self._path = path
        self.raw = read_json(path)

    def number(self, name: str, most: int, least: int = 1) -> int:
        value = self.raw.get(name)
        require(
            type(value) is int and least <= value <= most,
            f"{self._path} has {name} {value!r}, but a model has a whole number from {least} to "
            f"{most:,}",
        )
        return int(value)  # type: ignore[arg-type]

    def both(self, name: str) -> int:
        """The one value that encoder and decoder have."""
        sides = [self.number(f"{side}_{name}", _MOST[name]) for side in ("encoder", "decoder")]
        require(
            sides[0] == sides[1],
            f"{self._path} has encoder_{name} {sides[0]} and decoder_{name} {sides[1]}, but here "
            "encoder and decoder are equally wide",
        )
        return sides[0]

    def share(self, name: str, default: float) -> float:
        value = self.raw.get(name, default)
        require(
            type(value) in (int, float) and 0 <= value < 1,
            f"{self._path} has {name} {value!r}, but it is a number from 0 to below 1",
        )
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.raw.get(name, default)
        require(type(value) is bool, f"{self._path} has {name} {value!r}, but it is true or false")
        return bool(value)

    def one_of(self, name: str, known: dict[str, Any]) -> str:
        value = str(self.raw.get(name))
        require(
            value in known,
            f"{self._path} has the {name} {value!r}, but there is: {', '.join(known)}",
        )
        return value

    def refuse(self, harmless: dict[str, tuple[object, ...]]) -> None:
        """Raises `UserError` for settings with other values than `harmless` ones."""
        for name, values in harmless.items():
            value = self.raw.get(name, values[0])
            require(value in values, f"{self._path} has {name} {value!r}, which no model here has")


def read_config(folder: Path) -> TheirModel:
    """Reads `folder`/config.json; raises `UserError` for what is missing, absurd or unknown."""
    path = folder / "config.json"
    settings = _Settings(path)
    kind = settings.one_of("model_type", _KINDS)
    is_marian = kind == "marian"
    if is_marian:
        settings.refuse(_REFUSED)
    source_size = target_size = settings.number("vocab_size", 1 << 24, 5)
    shares = settings.flag("share_encoder_decoder_embeddings", True)
    if not shares:
        target_size = settings.number("decoder_vocab_size", 1 << 24, 5)
    model = TransformerConfig(
        num_encoder_layers=settings.number("encoder_layers", _MOST["layers"]),
        num_decoder_layers=settings.number("decoder_layers", _MOST["layers"]),
        d_model=settings.number("d_model", 1 << 16),
        num_heads=settings.both("attention_heads"),
        d_ff=settings.both("ffn_dim"),
        dropout=settings.share("dropout", 0.1),
        activation=_ACTIVATIONS[settings.one_of("activation_function", _ACTIVATIONS)],
        scale_embedding=settings.flag("scale_embedding", not is_marian),
        norm_epsilon=settings.share("layer_norm_eps", 1e-5),
        own_source_table=not shares,
        **_KINDS[kind],
    )
    most = min(source_size, target_size) - 1
    pad, eos, start = (
        settings.number(f"{name}_token_id", most, 0) for name in ("pad", "eos", "decoder_start")
    )
    require(
        is_marian or pad == 1,
        f"{path} has pad_token_id {pad}, but positions of {kind} are counted from pad 1",
    )
    return TheirModel(kind, model, source_size, target_size, pad, eos, start, settings.raw)
