"""Scores of translations as the field computes them: sacreBLEU, with its signatures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

Tokenize = Literal["13a", "intl", "char", "zh", "none"]
"""How sacreBLEU splits text into words; those of its ways that need no further download."""


@dataclass(frozen=True)
class Scores:
    """Each measure of a set of translations, in points of 100, and how exactly it was taken."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    ter: float
    ter_signature: str


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    lowercase: bool = False,
    tokenize: Tokenize = "13a",
) -> Scores:
    """BLEU, chrF2 and TER of `hypotheses` against one reference each.

    lowercase: for BLEU and chrF; TER never tells capitals apart. tokenize: for BLEU; "none" takes
    text as it is, which suits text that is tokenised already. One at least must be given.
    """
    bleu = _bleu(lowercase, tokenize)
    chrf = CHRF(lowercase=lowercase)
    ter = TER()
    return Scores(
        *_corpus_score(bleu, hypotheses, references),
        *_corpus_score(chrf, hypotheses, references),
        *_corpus_score(ter, hypotheses, references),
    )


def bleu_only(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """The BLEU of `score`, in a fraction of the time."""
    return _corpus_score(_bleu(False, "13a"), hypotheses, references)[0]


def compound_split_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """The measure of the paper's tables (tensor2tensor's get_ende_bleu.sh), with its signature.

    Not to be compared with BLEU: text is tokenised, a hyphen between two characters becomes a word
    of its own, and BLEU counts the words that result, capitals told apart. It is higher, since
    every hyphen is one more match.

    The script replaces Chinese punctuation and curly quotes by ASCII, then tokenises with Moses'
    tokenizer.perl. Here the same characters are replaced, but the tokenizer is sacreBLEU's 13a.
    They differ in that 13a keeps apostrophes inside words, splits the point off abbreviations and
    a hyphen off a digit before it, and does not split off punctuation outside of ASCII, such as
    the opening quote of German. Expect a difference of some tenths.
    """
    bleu = _bleu(False, "none")
    value, signature = _corpus_score(
        bleu,
        [_split_compounds(text) for text in hypotheses],
        [_split_compounds(text) for text in references],
    )
    return value, signature.replace("tok:none", "tok:13a+compound_split")


# What Moses' replace-unicode-punctuation.perl replaces.
_ASCII_PUNCTUATION = str.maketrans(
    dict(zip("，、”“：∶？》（）！；」「《１２３４５６７８９０～’━〈〉【】％",
             ",,\"\"::?\"()!;\"\"\"1234567890~'-<>[]%", strict=True))
    | {"。": ". ", "．": ". ", "…": "..."}
)  # fmt: skip

_tokenize_13a = Tokenizer13a()


def _split_compounds(text: str) -> str:
    words = _tokenize_13a(text.translate(_ASCII_PUNCTUATION))
    return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", words)


def _bleu(lowercase: bool, tokenize: Tokenize) -> BLEU:
    # force: it was the user's choice not to tokenise, so no warning that the text looks tokenised.
    return BLEU(lowercase=lowercase, tokenize=tokenize, force=tokenize == "none")


def _corpus_score(
    metric: BLEU | CHRF | TER, hypotheses: Sequence[str], references: Sequence[str]
) -> tuple[float, str]:
    value = metric.corpus_score(hypotheses, [references]).score
    return value, str(metric.get_signature())
