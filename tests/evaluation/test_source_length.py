"""BLEU by source length is sacreBLEU's, of the sentences of each length."""

import pytest
import sacrebleu

from flax_transformer.evaluation.source_length import bleu_by_source_length

SOURCES = ["a " * count for count in (1, 10, 11, 20, 41, 100, 0)]
REFERENCES = [
    f"the {word} cat sees a house and eats bread" for word in ("old", "red", "big", "fat", "wet")
]
REFERENCES += ["we drink water every day in this town", "nothing"]
HYPOTHESES = [text.replace("sees a", "looks at the") for text in REFERENCES[:3]] + REFERENCES[3:]


def test_bins_are_those_of_direct_sacrebleu_calls():
    found = bleu_by_source_length(SOURCES, HYPOTHESES, REFERENCES)
    assert [one.name for one in found] == ["1-10", "11-20", "21-30", "31-40", "41+"]
    assert [one.sentences for one in found] == [2, 2, 0, 0, 2]  # the empty source is in none
    for place, chosen in ((0, slice(0, 2)), (1, slice(2, 4)), (4, slice(4, 6))):
        expected = sacrebleu.corpus_bleu(HYPOTHESES[chosen], [REFERENCES[chosen]]).score
        assert found[place].bleu == pytest.approx(expected)
    assert found[0].bleu < found[1].bleu < found[4].bleu
    assert found[2].bleu is None and found[3].bleu is None


def test_bins_of_few_sentences_are_marked():
    for count, too_few in ((19, True), (20, False)):
        (one,) = bleu_by_source_length(["a"] * count, ["b c"] * count, ["b c"] * count, (1,))
        assert one.too_few is too_few and one.name == "1+" and one.sentences == count
