"""What each error means for the command that it ends."""

import errno

import pytest

from flax_transformer.errors import FlaxTransformerError
from flax_transformer.runtime.exit_codes import exit_code


@pytest.mark.parametrize("kind", FlaxTransformerError.__subclasses__())
def test_errors_of_ours_are_one_message_and_code_2(kind, capsys):
    assert exit_code(kind("what is wrong, and what to do")) == 2
    assert capsys.readouterr().err == "error: what is wrong, and what to do\n"


def test_there_are_errors_of_ours():
    names = {kind.__name__ for kind in FlaxTransformerError.__subclasses__()}
    assert {"DivergedError", "CheckpointError", "LostProcessError"} < names


@pytest.mark.parametrize(
    "error", [ValueError("a"), FloatingPointError("b"), OSError(errno.EIO, "no file is named")]
)
def test_a_defect_is_shown_with_its_traceback(error, capsys):
    assert exit_code(error) is None
    assert capsys.readouterr().err == ""
