"""The measure of the paper's tables: BLEU of words as Moses tokenises German, compounds split."""

import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec

from sacrebleu.metrics import BLEU

from flax_transformer.errors import require
from flax_transformer.evaluation.scores import in_points


def require_moses() -> None:
    """Raises `UserError` where sacremoses is not installed."""
    require(
        find_spec("sacremoses") is not None,
        "--compound-split tokenises with sacremoses, which is not installed: "
        "pip install sacremoses, or leave the flag out",
    )


def compound_split_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """Returns what tensor2tensor's get_ende_bleu.sh computes, with a signature.

    It cannot be compared with BLEU. The script tokenises with Moses' tokenizer.perl -l de, which
    sacremoses replaces here, and makes a hyphen between two characters a word of its own. Then
    multi-bleu.perl counts the words that result, with capitals told apart and without smoothing.
    """
    split = split_compounds()
    # force: no warning that the text is tokenised, as it should be.
    bleu = BLEU(tokenize="none", smooth_method="none", force=True)
    score = bleu.corpus_score(list(map(split, hypotheses)), [list(map(split, references))])
    signature = str(bleu.get_signature()).replace("tok:none", "tok:moses-de+compound_split")
    return in_points("bleu", score.score), f"{signature}|sacremoses:{version('sacremoses')}"


def split_compounds() -> Callable[[str], str]:
    """Returns what turns a sentence into the words that are counted, with spaces between them."""
    require_moses()
    from sacremoses import MosesTokenizer

    moses = MosesTokenizer(lang="de")

    def split(text: str) -> str:
        # Like the script's tokenizer without flags: characters escaped, hyphens left inside words.
        words = moses.tokenize(text, return_str=True)
        return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", words)

    return split
