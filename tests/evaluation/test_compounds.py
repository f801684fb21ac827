"""The paper's measure is what tensor2tensor's get_ende_bleu.sh computes."""

import sys
from importlib.metadata import version

import pytest
import sacrebleu

from flax_transformer.config import Config
from flax_transformer.errors import UserError
from flax_transformer.evaluation import compounds
from flax_transformer.evaluation.compounds import compound_split_bleu
from flax_transformer.evaluation.evaluation import report_on
from flax_transformer.evaluation.measures import Measures

# As `tokenizer.perl -l de` of 2017 and the script's own expression make them; neither an
# abbreviation nor a number loses its point, a comma in a number stays, and an apostrophe is a word.
SPLIT = {
    "Der E-Mail-Dienst, z.B. von Dr. Müller, kostet 1.234,56 €.":
        "Der E ##AT##-##AT## Mail ##AT##-##AT## Dienst , z.B. von Dr. Müller , kostet 1.234,56 € .",
    "„Das ist's“, sagte er (am 3. Mai) -- \"A&B\" <x> [y] a|b":
        "„ Das ist &apos; s “ , sagte er ( am 3. Mai ) -- &quot; A &amp; B &quot; "
        "&lt; x &gt; &#91; y &#93; a &#124; b",
    "ein wohl-bekanntes ¿Haus?… 10-15 Kinder, ca. 5km/h...":
        "ein wohl ##AT##-##AT## bekanntes ¿ Haus ? … 10 ##AT##-##AT## 15 Kinder , ca. 5km / h ...",
    "a-b-c": "a ##AT##-##AT## b-c",
}  # fmt: skip


def test_words_are_those_of_the_script():
    moses = compounds.split_compounds()
    assert {text: moses(text) for text in SPLIT} == SPLIT


def test_compound_split_bleu_is_that_of_multi_bleu():
    references = list(SPLIT)
    hypotheses = [text.replace("Dienst", "Post").replace("Haus", "Heim") for text in references]
    split = compounds.split_compounds()
    words = [list(map(split, texts)) for texts in (hypotheses, references)]
    value, signature = compound_split_bleu(hypotheses, references)
    plain = {"tokenize": "none", "force": True}
    expected = sacrebleu.corpus_bleu(words[0], [words[1]], **plain).score
    assert 20 < value < 100 and value == pytest.approx(expected)
    assert "|tok:moses-de+compound_split|" in signature
    assert signature.endswith(f"|sacremoses:{version('sacremoses')}")
    # multi-bleu.perl does not smooth: without any four words in common it says 0.
    assert compound_split_bleu(["ein Haus ist hier"], ["ein Haus ist dort drüben"])[0] == 0
    assert "|smooth:none|" in signature


def test_without_sacremoses_there_is_one_error_before_the_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    message = r"--compound-split .*sacremoses, which is not installed: .*pip install sacremoses"
    with pytest.raises(UserError, match=message):
        report_on(tmp_path, Config(), [], measures=Measures(compound_split=True))
    with pytest.raises(UserError, match=message):
        compound_split_bleu(["x"], ["x"])
