"""Imported tokenizers give the ids of transformers' own, on lines that tokenizers stumble over."""

import re

import pytest
from support.hugging_face import SENTENCES, write_m2m, write_marian, write_nllb
from support.odd_lines import odd_lines

from flax_transformer.errors import UserError
from flax_transformer.exchange.huggingface_config import read_config
from flax_transformer.exchange.huggingface_vocabulary import TheirVocabulary, read_vocabulary
from flax_transformer.text.imported_tokenizer import ImportedTokenizer

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.peer("transformers")

LINES = odd_lines(1000)
TAUGHT = [*SENTENCES, *odd_lines(300, seed=1)]
"""What vocabularies are learned from, so that odd characters are pieces of text in some places."""


def ours(folder, *languages) -> tuple[TheirVocabulary, ImportedTokenizer]:
    read = read_vocabulary(folder, read_config(folder), *(languages or (None, None)))
    return read, ImportedTokenizer(read.file)


def assert_same_ids(lines, vocabulary, tokenizer, theirs):
    """Of sources and of targets; the end symbol is theirs alone."""
    for own, rows, asked in (
        (tokenizer, vocabulary.source_rows, "text"),
        (tokenizer.target, vocabulary.target_rows, "text_target"),
    ):
        for line, ids, other in zip(
            lines, own.encode(lines), theirs(**{asked: lines})["input_ids"], strict=True
        ):
            if ids:
                assert [rows[i] for i in ids] == other[:-1], line
            else:  # a line without text has no language here
                assert len(other) <= 2, line


@pytest.mark.parametrize("taught", [SENTENCES, TAUGHT], ids=["few letters", "many"])
def test_marian(tmp_path, taught):
    languages = (">>fra<<", ">>deu<<")
    write_marian(tmp_path / "theirs", languages=languages, sentences=taught)
    theirs = transformers.MarianTokenizer.from_pretrained(tmp_path / "theirs")
    # Where the vocabulary has no such language it is text here, and unknown there.
    lines = [
        line
        for line in LINES
        if not (named := re.match(">>.*?<<", line, re.DOTALL)) or named.group() in languages
    ]
    assert len(lines) > 800
    assert sum(line.startswith(languages) for line in lines) > 50
    assert_same_ids(lines, *ours(tmp_path / "theirs"), theirs)


@pytest.mark.parametrize("taught", [SENTENCES, TAUGHT], ids=["few letters", "many"])
def test_m2m_100(tmp_path, taught):
    write_m2m(tmp_path / "theirs", sentences=taught)
    theirs = transformers.M2M100Tokenizer.from_pretrained(
        tmp_path / "theirs", src_lang="en", tgt_lang="fr"
    )
    assert_same_ids(LINES, *ours(tmp_path / "theirs", "en", "fr"), theirs)


@pytest.mark.parametrize("taught", [SENTENCES, TAUGHT], ids=["few letters", "many"])
def test_nllb(tmp_path, taught):
    """transformers 5 keeps a space at the end, and composes some marks in other places than
    SentencePiece: the lines are those that both leave as they are."""
    folder = tmp_path / "theirs"
    languages = write_nllb(folder, sentences=taught)
    theirs = transformers.NllbTokenizer.from_pretrained(folder)
    assert {name: theirs.convert_tokens_to_ids(name) for name in languages} == languages
    vocabulary, tokenizer = ours(folder, "eng_Latn", "fra_Latn")
    normalize = theirs.backend_tokenizer.normalizer.normalize_str
    lines = [line for line in tokenizer.normalize(LINES) if normalize(line) == line]
    assert len(lines) > 950
    assert_same_ids(lines, vocabulary, tokenizer, theirs)
    # The languages from tokenizer.json are those from tokenizer_config.json.
    theirs.save_pretrained(tmp_path / "saved")
    (folder / "tokenizer_config.json").unlink()
    content = (tmp_path / "saved" / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(content)
    assert ours(folder, "eng_Latn", "fra_Latn")[0] == vocabulary
    (folder / "sentencepiece.bpe.model").unlink()
    with pytest.raises(UserError, match="which transformers 5 leaves out"):
        ours(folder, "eng_Latn", "fra_Latn")
