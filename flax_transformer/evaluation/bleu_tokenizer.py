"""How BLEU splits text into words: as the target language is written, unless the user chooses."""

import re
import socket
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers import tokenizer_spm

from flax_transformer.config import BleuTokenizer, Builtin, TextFiles, Tfds
from flax_transformer.errors import UserError

_CODES: dict[BleuTokenizer, str] = {
    "zh": "zh zho chi cmn yue wuu nan hak gan hsn cdo cjy cpx czh czo lzh mnp cn",
    "ja-mecab": "ja jpn jp",
    "ko-mecab": "ko kor",
    "char": "th tha tts nod sou lo lao khb km khm kxm my mya bur shn mnw rki bo bod tib dz dzo adx "
    "khg lbj",
}
"""Languages by ISO 639-1 and 639-3, the older codes of 639-2, and two country codes."""

_SCRIPTS: dict[BleuTokenizer, str] = {
    "zh": "hans hant hani bopo",
    "ja-mecab": "jpan hira kana hrkt",
    "ko-mecab": "kore hang",
    "char": "thai laoo khmr mymr tibt lana talu tavt",
}
"""By ISO 15924; every other script has spaces between words."""

_EXTRAS = {"ja-mecab": "ja", "ko-mecab": "ko"}
"""Extras of sacreBLEU to install."""

_SCRIPTS_WITHOUT_SPACES = {
    "CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN",
}  # fmt: skip
"""As the Unicode names of their characters begin."""

_LONG_WORD = 6
"""More characters than words of these scripts usually have."""

_SECONDS_OF_SILENCE = 30.0


def choose_tokenizer(
    setting: BleuTokenizer, data: Builtin | TextFiles | Tfds, note: Callable[[str], None]
) -> BleuTokenizer:
    """Returns the `setting`; for "auto", what suits the target language of `data`.

    Where that is MeCab and it is not installed, it is "char", and `note` says so.
    """
    if setting != "auto":
        return setting
    chosen = "13a" if isinstance(data, Builtin) else _of_language(data.target_language)
    if chosen in _EXTRAS and _problem(chosen):
        note(
            f"BLEU of single characters, as {chosen} is not installed: for BLEU of words "
            f"{_install(chosen)} before a run begins"
        )
        return "char"
    return chosen


def require_tokenizer(tokenizer: str, flag: str) -> None:
    """Raises `UserError` where sacreBLEU cannot use `tokenizer` here; `flag` chooses others."""
    if not (problem := _problem(tokenizer)):
        return
    if tokenizer in _EXTRAS:
        remedy = _install(tokenizer)
    else:  # which is one of SentencePiece
        url = tokenizer_spm.SPM_MODELS[tokenizer]["url"]
        path = Path(tokenizer_spm.SACREBLEU_DIR, "models", url.rpartition("/")[2])
        remedy = f"put {url} at {path}"
    raise UserError(
        f"BLEU's tokenizer {tokenizer} cannot be used ({problem}):\n{remedy}, or choose another "
        f"with {flag}"
    )


def runs_words_together(texts: Iterable[str]) -> bool:
    """Returns whether `texts` are written without spaces between words.

    They are where most letters are of scripts without such spaces, and stand in strings longer than
    words. A code such as tgt for the target language does not tell.
    """
    words = [word for text in texts for word in text.split()]
    of_scripts = [word for word in words if any(map(_is_of_scripts, word))]
    letters = sum(map(str.isalpha, "".join(words)))
    without_spaces = sum(map(_is_of_scripts, "".join(of_scripts)))
    return 2 * without_spaces > letters and sum(map(len, of_scripts)) > _LONG_WORD * len(of_scripts)


def _is_of_scripts(character: str) -> bool:
    name = unicodedata.name(character, "") if character.isalpha() else ""
    return name.partition(" ")[0] in _SCRIPTS_WITHOUT_SPACES


def _of_language(language: str) -> BleuTokenizer:
    """Returns the tokenizer for a code such as zh, zh-CN, zho_Hans or, as files may end, tok.zh."""
    code, *details = re.split("[-_]", language.lower().rpartition(".")[2])
    for script in details:
        if len(script) == 4 and script.isalpha():  # ISO 15924; a country has two letters
            return _listed_under(script, _SCRIPTS)
    return _listed_under(code, _CODES)


def _listed_under(code: str, lists: Mapping[BleuTokenizer, str]) -> BleuTokenizer:
    found = (tokenizer for tokenizer, codes in lists.items() if code in codes.split())
    return next(found, "13a")


def _install(tokenizer: str) -> str:
    return f"pip install 'sacrebleu[{_EXTRAS[tokenizer]}]'"


def _problem(tokenizer: str) -> str:
    """Returns what keeps sacreBLEU from using `tokenizer`; empty where nothing does."""
    try:
        with _no_endless_silence():
            BLEU(tokenize=tokenizer)
    except Exception as error:  # whatever MeCab, SentencePiece, the network and the disk raise
        if tokenizer in _EXTRAS:
            return "MeCab and its dictionary are not installed"
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


@contextmanager
def _no_endless_silence() -> Iterator[None]:
    """Limits how long a server may say nothing.

    sacreBLEU fetches models, and would wait for ever for such a server.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS_OF_SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
