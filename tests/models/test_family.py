"""Every family of models answers the same questions."""

import inspect

import pytest

from flax_transformer.models.family import Family
from flax_transformer.models.incremental import IncrementalTransformer
from flax_transformer.models.recurrent.seq2seq import Seq2Seq

QUESTIONS = [
    name
    for name, value in vars(Family).items()
    if inspect.isfunction(value) and (name == "__call__" or not name.startswith("_"))
]


def parameters(model, name) -> dict[str, bool]:
    """Whether each may be left out, by name."""
    found = inspect.signature(getattr(model, name)).parameters.values()
    return {each.name: each.default is not inspect.Parameter.empty for each in found}


@pytest.mark.parametrize("model", [IncrementalTransformer, Seq2Seq])
@pytest.mark.parametrize("question", QUESTIONS)
def test_each_is_asked_in_the_same_words(model, question):
    asked, answered = parameters(Family, question), parameters(model, question)
    assert list(answered)[: len(asked)] == list(asked)
    assert all(answered[name] for name in list(answered)[len(asked) :])


@pytest.mark.parametrize("model", [IncrementalTransformer, Seq2Seq])
def test_each_has_its_settings(model):
    assert inspect.get_annotations(Family).keys() <= {
        name for each in model.__mro__ for name in inspect.get_annotations(each)
    }


def test_there_are_questions():
    assert len(QUESTIONS) == 10
