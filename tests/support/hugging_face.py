"""Small folders as Hugging Face's transformers writes them: random weights, a trained vocabulary.

Nothing is downloaded. The vocabulary is learned from made-up sentences by SentencePiece.
"""

import io
import json
from pathlib import Path

import numpy as np
import sentencepiece

SENTENCES = [
    f"{subject} {verb} {adverb} {place}{end}"
    for subject in ("The old cat", "A small bird", "My friend", "Nobody", "Élodie", "Straße 5")
    for verb in ("sleeps", "walks", "is singing", "reads", "l'aime", "geht")
    for adverb in ("today", "quietly", "again and again", "déjà")
    for place in ("in the garden", "at the station", "under 42 trees", "à Paris", "в Москве")
    for end in (".", "!", "?")
]  # fmt: skip


def train_spm(sentences, size: int, kind: str = "unigram") -> bytes:
    """Returns a SentencePiece model: of the unigram kind those of OPUS-MT are, of bpe NLLB's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=size,
        model_type=kind,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def pieces_of(spm: bytes) -> list[str]:
    """Its pieces of text, in order."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=spm)
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    return [piece for piece in pieces if piece not in ("<unk>", "<s>", "</s>")]


def write_marian_vocabulary(folder: Path, languages=(), sentences=SENTENCES) -> dict[str, int]:
    """Writes source.spm, target.spm and vocab.json, numbered as OPUS-MT's; returns the latter."""
    size = 330 if sentences is SENTENCES else 3300
    source, target = train_spm(sentences, size), train_spm(sentences[::3], size - 20)
    (folder / "source.spm").write_bytes(source)
    (folder / "target.spm").write_bytes(target)
    united = dict.fromkeys([*languages, *pieces_of(target)[::-1], *pieces_of(source)])
    united |= dict.fromkeys(f"▁rare{i}" for i in range(300 - len(united)))
    vocabulary = {"</s>": 0, "<unk>": 1} | {piece: i for i, piece in enumerate(united, 2)}
    vocabulary["<pad>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"source_lang": "en", "target_lang": "fr"}')
    return vocabulary


MARIAN = {
    "model_type": "marian", "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "activation_function": "swish", "scale_embedding": True,
    "max_position_embeddings": 64, "eos_token_id": 0, "dropout": 0.1, "num_beams": 4,
}  # fmt: skip
M2M = MARIAN | {
    "model_type": "m2m_100", "activation_function": "relu", "pad_token_id": 1, "eos_token_id": 2,
    "bos_token_id": 0, "decoder_start_token_id": 2, "encoder_layerdrop": 0, "decoder_layerdrop": 0,
}  # fmt: skip


def write_marian(folder: Path, **changed) -> dict[str, int]:
    """Writes a MarianMT model with random weights, and its vocabulary, which is returned."""
    folder.mkdir()
    vocabulary = write_marian_vocabulary(
        folder, changed.pop("languages", ()), changed.pop("sentences", SENTENCES)
    )
    pad = vocabulary["<pad>"]
    config = MARIAN | {"pad_token_id": pad, "decoder_start_token_id": pad} | changed
    config |= {"vocab_size": len(vocabulary), "decoder_vocab_size": len(vocabulary)}
    if config.get("share_encoder_decoder_embeddings") is False:
        # Another order for the target, and more pieces.
        others = sorted({*vocabulary} - {"</s>", "<unk>", "<pad>"}, reverse=True)
        target = ["</s>", "<unk>", *others, "<pad>", *(f"▁more{i}" for i in range(7))]
        target_vocabulary = {name: i for i, name in enumerate(target)}
        (folder / "target_vocab.json").write_text(json.dumps(target_vocabulary), encoding="utf-8")
        settings = {"separate_vocabs": True, "source_lang": "en", "target_lang": "fr"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        config["decoder_vocab_size"] = len(target)
    write_model(folder, config)
    return vocabulary


def write_m2m(folder: Path, **changed) -> dict[str, int]:
    """Writes a model of M2M-100's architecture with random weights; returns its vocabulary."""
    folder.mkdir()
    sentences = changed.pop("sentences", SENTENCES)
    spm = train_spm(sentences, 330 if sentences is SENTENCES else 3300)
    pieces = [*pieces_of(spm), *(f"▁rare{i}" for i in range(230))]
    names = ["<s>", "<pad>", "</s>", "<unk>", *pieces]
    vocabulary = {name: i for i, name in enumerate(names)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "sentencepiece.bpe.model").write_bytes(spm)
    # Where transformers puts the symbols of these of its hundred languages, which no file holds.
    languages = {len(names) + 18: "__en__", len(names) + 24: "__fr__"}
    settings = {"tokenizer_class": "M2M100Tokenizer", "src_lang": "en", "tgt_lang": "fr"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write_model(folder, M2M | {"vocab_size": len(names) + 108} | changed)
    return vocabulary | {name: i for i, name in languages.items()}


def write_nllb(folder: Path, sentences=SENTENCES) -> dict[str, int]:
    """Writes a model of NLLB's kind with random weights; returns the ids of its languages."""
    folder.mkdir()
    spm = train_spm(sentences, 330 if sentences is SENTENCES else 3300, "bpe")
    (folder / "sentencepiece.bpe.model").write_bytes(spm)
    # Four symbols of fairseq in place of three of SentencePiece, then its pieces and these.
    first = 4 + len(pieces_of(spm))
    languages = {"ace_Latn": first, "eng_Latn": first + 1, "fra_Latn": first + 2}
    names = dict(enumerate(["<s>", "<pad>", "</s>", "<unk>"]))
    names |= {i: name for name, i in languages.items()} | {first + 3: "<mask>"}
    added = {str(i): {"content": name, "special": True} for i, name in names.items()}
    settings = {
        "tokenizer_class": "NllbTokenizer", "src_lang": "eng_Latn", "tgt_lang": "fra_Latn",
        "added_tokens_decoder": added,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write_model(folder, M2M | {"vocab_size": first + 6})
    return languages


def write_model(folder: Path, config: dict) -> None:
    """Writes config.json and model.safetensors, of which no number is one that hides a mistake."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(3)
    tensors = {
        name: random.normal("layer_norm.weight" in name, 0.4, shape).astype(np.float32)
        for name, shape in shapes_of(config).items()
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def shapes_of(config: dict) -> dict[str, tuple[int, ...]]:
    """The tensors that transformers writes for `config`."""
    d, f, v = config["d_model"], config["encoder_ffn_dim"], config["vocab_size"]
    is_marian = config["model_type"] == "marian"
    shapes: dict[str, tuple[int, ...]] = {"model.shared.weight": (v, d)}
    target = v
    if config.get("share_encoder_decoder_embeddings") is False:
        target = config["decoder_vocab_size"]
        shapes = {
            "model.encoder.embed_tokens.weight": (v, d),
            "model.decoder.embed_tokens.weight": (target, d),
        }
    if is_marian:
        shapes["final_logits_bias"] = (1, target)
    if config.get("tie_word_embeddings") is False:
        shapes["lm_head.weight"] = (target, d)
    attentions = {"encoder": ["self_attn"], "decoder": ["self_attn", "encoder_attn"]}
    for side, names in attentions.items():
        norms = [*(f"{name}_layer_norm" for name in names), "final_layer_norm"]
        for layer in range(config[f"{side}_layers"]):
            place = f"model.{side}.layers.{layer}"
            for name in names:
                for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    shapes[f"{place}.{name}.{projection}.weight"] = (d, d)
                    shapes[f"{place}.{name}.{projection}.bias"] = (d,)
            for name in norms:
                shapes |= {f"{place}.{name}.weight": (d,), f"{place}.{name}.bias": (d,)}
            shapes |= {f"{place}.fc1.weight": (f, d), f"{place}.fc1.bias": (f,)}
            shapes |= {f"{place}.fc2.weight": (d, f), f"{place}.fc2.bias": (d,)}
        if not is_marian:
            shapes[f"model.{side}.layer_norm.weight"] = (d,)
            shapes[f"model.{side}.layer_norm.bias"] = (d,)
    return shapes
