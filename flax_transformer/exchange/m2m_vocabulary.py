"""The vocabularies of M2M-100 and of NLLB, two ways to number the pieces of SentencePiece.

M2M-100  vocab.json numbers the pieces; its languages, such as __fr__, come after them in an order
         that no file holds
NLLB     four symbols of fairseq, then SentencePiece's own order; tokenizer.json or
         tokenizer_config.json numbers the languages, such as fra_Latn
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_transformer.errors import require
from flax_transformer.exchange.piece_files import Files, list_pieces, read_spm, require_language
from flax_transformer.exchange.tensor_files import read_json
from flax_transformer.text.imported_tokenizer import ImportedTokenizer
from flax_transformer.text.tokenizer import Tokenizer

SPM = "sentencepiece.bpe.model"
LANGUAGE_CODES = {
    "m2m100": (
        "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl "
        "gu ha he hi hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml "
        "mn mr ms my ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th "
        "tl tn tr uk ur uz vi wo xh yi yo zh zu"
    ),
    "wmt21": "en ha is ja cs ru zh de",
}
"""M2M-100's languages in the order of their ids, under the names that tokenizers give the list."""

_LANGUAGE = re.compile(r"__\w+__|[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")
_FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")


def read_m2m(folder: Path, size: int) -> Files:
    """Reads the vocabulary of M2M-100 or NLLB in `folder`, which has `size` ids.

    Raises `UserError` where a file is missing or numbers an id that there is not.
    """
    require(
        (folder / SPM).is_file() or not (folder / "tokenizer.json").is_file(),
        f"{folder} has no {SPM}, which transformers 5 leaves out where it saves NLLB: copy it from "
        "the model that this one was made of",
    )
    spm = read_spm(folder / SPM)
    pieces = _added(folder, size)
    if (folder / "vocab.json").is_file():
        known = read_json(folder / "vocab.json")
        pieces |= _languages(folder, len(known), size)
    else:
        known = nllb_pieces(spm)
    named = list_pieces(pieces | {i: piece for piece, i in known.items()}, size, folder / SPM)
    return named, named, (spm, spm)


def _languages(folder: Path, first: int, size: int) -> dict[int, str]:
    """M2M-100's symbols of languages by id, as many as there are ids for."""
    path = folder / "tokenizer_config.json"
    name = read_json(path).get("language_codes") if path.is_file() else None
    codes = LANGUAGE_CODES.get(str(name), LANGUAGE_CODES["m2m100"])
    return {i: f"__{code}__" for i, code in enumerate(codes.split(), first) if i < size}


def nllb_pieces(spm: bytes) -> dict[str, int]:
    """The ids that NLLB gives the pieces of its SentencePiece model."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=spm)
    ids = range(3, processor.get_piece_size())
    found = {name: i for i, name in enumerate(_FAIRSEQ)}
    return found | {processor.id_to_piece(i): i + 1 for i in ids}


def _added(folder: Path, size: int) -> dict[int, str]:
    """Symbols that the tokenizer's settings add to the vocabulary, by id."""
    found: dict[int, str] = {}
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        added = read_json(settings).get("added_tokens_decoder") or {}
        found |= {int(i): str(token["content"]) for i, token in dict(added).items()}
    if (folder / "tokenizer.json").is_file():
        added_tokens = read_json(folder / "tokenizer.json").get("added_tokens") or []
        found |= {int(token["id"]): str(token["content"]) for token in added_tokens}
    if (folder / "added_tokens.json").is_file():
        found |= {int(i): piece for piece, i in read_json(folder / "added_tokens.json").items()}
    return {i: piece for i, piece in found.items() if 0 <= i < size}


def m2m_languages(
    files: Files, folder: Path, source: str | None, target: str | None
) -> tuple[list[str], list[str]]:
    """Returns the symbols that every source and every target begins with.

    Raises `UserError` where a language is missing, or none of the vocabulary's.
    """
    found = []
    languages = [piece for piece in files[0] if _LANGUAGE.fullmatch(piece)]
    for flag, code in (("--source-language", source), ("--target-language", target)):
        require(
            code is not None,
            f"{folder} is a model of many languages: give {flag} as it names them (M2M-100 has fr, "
            "NLLB fra_Latn)",
        )
        symbol = f"__{code}__" if f"__{code}__" in languages else str(code)
        require_language(symbol, languages, folder, flag)
        found.append([symbol])
    return found[0], found[1]


def m2m_tokenizer_files(tokenizer: Tokenizer, pieces: Mapping[str, int]) -> dict[str, Any] | None:
    """Returns the contents of the JSON files by which transformers numbers the `pieces` likewise.

    pieces: the id that the model's makers have given to each piece

    None for a vocabulary that neither M2M100Tokenizer nor NllbTokenizer has.
    """
    symbols = [side.pieces(side.before) for side in (tokenizer, tokenizer.target)]
    if not isinstance(tokenizer, ImportedTokenizer) or not all(len(own) == 1 for own in symbols):
        return None
    (source,), (target,) = symbols
    if source.startswith("__"):
        files = _m2m_100_files(pieces)
    else:
        files = _nllb_files(pieces, tokenizer.spm[0])
    if files:
        codes = {"src_lang": source.strip("_"), "tgt_lang": target.strip("_")}
        files["tokenizer_config.json"] |= codes
    return files


def _m2m_100_files(pieces: Mapping[str, int]) -> dict[str, Any] | None:
    for name, codes in LANGUAGE_CODES.items():
        languages = [f"__{code}__" for code in codes.split()]
        texts = {piece: i for piece, i in pieces.items() if piece not in languages}
        numbered = {piece: i for i, piece in enumerate(languages, len(texts))}
        stand_there = all(numbered.get(piece, i) == i for piece, i in pieces.items())
        if stand_there and sorted(texts.values()) == [*range(len(texts))]:
            settings = {
                "tokenizer_class": "M2M100Tokenizer",
                "language_codes": name,
                # Else transformers 5 takes them for text, and its translations begin with one.
                "additional_special_tokens": languages,
            }
            return {"vocab.json": texts, "tokenizer_config.json": settings}
    return None


def _nllb_files(pieces: Mapping[str, int], spm: bytes) -> dict[str, Any] | None:
    known = nllb_pieces(spm)
    if not known.items() <= pieces.items():
        return None
    added = {piece: i for piece, i in pieces.items() if piece not in known or piece in _FAIRSEQ}
    symbols = {str(i): {"content": piece, "special": True} for piece, i in added.items()}
    settings = {"tokenizer_class": "NllbTokenizer", "added_tokens_decoder": symbols}
    return {"tokenizer_config.json": settings}
