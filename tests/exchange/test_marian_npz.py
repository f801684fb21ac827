"""Models as Marian writes them, against CTranslate2's own reading of them."""

import json

import numpy as np
import pytest
from support.hugging_face import SENTENCES, write_marian_vocabulary

import flax_transformer as ft
from flax_transformer.errors import UserError
from flax_transformer.exchange.importing import import_model
from flax_transformer.exchange.marian_npz import read_yaml_vocabulary

D, F, LAYERS = 16, 24, 2
OPTIONS = {
    "type": "transformer", "enc-depth": LAYERS, "dec-depth": LAYERS, "transformer-heads": 2,
    "transformer-ffn-activation": "swish", "transformer-preprocess": "",
    "transformer-postprocess": "dan", "transformer-postprocess-top": "",
    "transformer-postprocess-emb": "d", "transformer-decoder-autoreg": "self-attention",
    "transformer-no-projection": False, "transformer-guided-alignment-layer": "last",
}  # fmt: skip
PRE = {
    "transformer-preprocess": "n",
    "transformer-postprocess": "da",
    "transformer-postprocess-top": "n",
}


def shapes(v: int, pre: bool, tied: bool) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"decoder_ff_logit_out_b": (1, v)}
    found |= {"Wemb": (v, D)} if tied else {"encoder_Wemb": (v, D), "decoder_Wemb": (v, D)}
    if not tied:
        found["decoder_ff_logit_out_W"] = (D, v)
    suffix = "_pre" if pre else ""
    for side, parts in {"encoder": ["self"], "decoder": ["self", "context"]}.items():
        if pre:
            found |= {f"{side}_top_ln_{kind}": (1, D) for kind in ("scale", "bias")}
        for layer in range(1, LAYERS + 1):
            place = f"{side}_l{layer}"
            for part in parts:
                for letter in "qkvo":
                    found[f"{place}_{part}_W{letter}"] = (D, D)
                    found[f"{place}_{part}_b{letter}"] = (1, D)
                for kind in ("scale", "bias"):
                    found[f"{place}_{part}_Wo_ln_{kind}{suffix}"] = (1, D)
            found |= {f"{place}_ffn_W1": (D, F), f"{place}_ffn_b1": (1, F)}
            found |= {f"{place}_ffn_W2": (F, D), f"{place}_ffn_b2": (1, D)}
            found |= {f"{place}_ffn_ffn_ln_{kind}{suffix}": (1, D) for kind in ("scale", "bias")}
    return found


def write_npz(folder, tied=True, **options):
    folder.mkdir()
    vocabulary = write_marian_vocabulary(folder)
    del vocabulary["<pad>"]
    (folder / "vocab.json").unlink()
    lines = [f"{json.dumps(piece, ensure_ascii=False)}: {i}" for piece, i in vocabulary.items()]
    (folder / "opus.vocab.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = OPTIONS | options
    random = np.random.default_rng(1)
    pre = options["transformer-preprocess"] == "n"
    tensors = {
        name: random.normal("ln_scale" in name, 0.4, shape).astype(np.float32)
        for name, shape in shapes(len(vocabulary), pre, tied).items()
    }
    settings = "".join(f"{name}: {json.dumps(value)}\n" for name, value in options.items())
    tensors["special:model.yml"] = np.frombuffer(settings.encode() + b"\0", np.int8)
    np.savez(folder / "model.npz", **tensors)
    return folder


@pytest.mark.peer("ctranslate2")
@pytest.mark.parametrize(("tied", "options"), [(True, {}), (False, PRE)], ids=["post", "pre"])
def test_scores_are_those_of_ctranslate2(tmp_path, tied, options):
    import ctranslate2
    from ctranslate2.converters import MarianConverter

    folder = write_npz(tmp_path / "theirs", tied, **options)
    paths = str(folder / "model.npz"), [str(folder / "opus.vocab.yml")] * 2
    MarianConverter(*paths).convert(str(tmp_path / "ct2"))
    import_model(folder, tmp_path / "ours")
    model = ft.load(tmp_path / "ours")
    sources, targets = SENTENCES[:12], SENTENCES[12:24]
    pieces = [
        [side.pieces(ids) for ids in side.encode(lines)]
        for side, lines in ((model.tokenizer, sources), (model.tokenizer.target, targets))
    ]
    theirs = ctranslate2.Translator(str(tmp_path / "ct2")).score_batch(*pieces)
    for ours, other in zip(model.pair_scores(sources, targets), theirs, strict=True):
        assert ours.total == pytest.approx(sum(other.log_probs), abs=1e-3, rel=1e-4)


def test_what_no_model_here_has_is_refused(tmp_path):
    for number, (options, message) in enumerate([
        ({"transformer-ffn-activation": "gelu"}, "--transformer-ffn-activation gelu"),
        ({"transformer-postprocess": "an"}, "norms at other places"),
        ({"enc-depth": 10**9}, "enc-depth 1000000000"),
        ({"enc-depth": 3}, "no tensor model.encoder.layers.2"),
        ({"type": "s2s"}, "--type s2s"),
    ]):  # fmt: skip
        folder = write_npz(tmp_path / str(number), **options)
        with pytest.raises(UserError, match=message):
            import_model(folder, tmp_path / "ours")
    (folder / "model.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(UserError, match="damaged"):
        import_model(folder, tmp_path / "ours")
    objects = {"special:model.yml": np.array([{"pickled": 1}], object)}
    np.savez(folder / "model.npz", **objects)
    with pytest.raises(UserError, match="damaged"):
        import_model(folder, tmp_path / "ours")


def test_pieces_that_yaml_would_take_for_something_else(tmp_path):
    path = tmp_path / "vocab.yml"
    lines = ['"</s>": 0', "'it''s': 1", "no: 2", "~: 3", '"\\x85": 4', '"\\"": 5', "? long", ": 6"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = ["</s>", "it's", "no", "~", "\x85", '"', "long", "<pad>"]
    assert read_yaml_vocabulary(path) == {piece: i for i, piece in enumerate(found)}
