"""The command's own mistakes, each told in one message."""

import pytest

from flax_transformer.commands import serve
from flax_transformer.config import Config
from flax_transformer.config.json import save_config
from flax_transformer.errors import UserError


@pytest.fixture
def workdir(tmp_path):
    save_config(Config(), tmp_path / "config.json")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "65536"], "--port is 65536, but must be from 0 to 65535"),
        (["--batch-wait", "-1"], "--batch-wait is -1.0, but must be from 0 to 1000"),
        (["--batch-lines", "0"], "serve.batch_lines is 0, but must be greater than 0"),
        (["--beam-sizes", "4", "0"], "--beam-sizes has 0, but all must be greater than 0"),
        (["--limits.lines", "0"], "limits.lines is 0, but must be greater than 0"),
        (["--limits.read-seconds", "nan"], "limits.read_seconds is nan, but must be"),
    ],
)
def test_wrong_settings_are_named(workdir, words, message, capsys):
    with pytest.raises((UserError, SystemExit)) as caught:
        serve.main(["--workdir", str(workdir), *words])
    assert message in str(caught.value) + " ".join(capsys.readouterr().err.replace("│", "").split())


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_a_missing_library_is_named(workdir, monkeypatch, missing):
    find = serve.importlib.util.find_spec
    monkeypatch.setattr(
        serve.importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    with pytest.raises(UserError, match=rf"{missing}: pip install 'flax_transformer\[serve\]'"):
        serve.main(["--workdir", str(workdir)])


def test_batches_have_few_sizes():
    assert serve.rows_ahead(64) == [1, 8, 64]
    assert serve.rows_ahead(8) == [1, 8]
    assert serve.rows_ahead(1) == [1]
