"""`flax-transformer inspect`: every picture of a run, and a page that shows them."""

import dataclasses
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from support.samples import recurrent
from support.states import save_untrained_run

from flax_transformer.commands import inspect
from flax_transformer.config import Builtin, DecodingConfig
from flax_transformer.errors import UserError
from flax_transformer.inspection import pictures
from flax_transformer.inspection.attention import Attention

METRICS = '{"step": 5, "kind": "train", "loss": 3.0}\n'


@pytest.fixture(scope="module")
def run(quick, small_config, tmp_path_factory):
    """The work directory of a Transformer that has learned nothing."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    workdir.mkdir()
    decoding = DecodingConfig(beam_size=2, extra_length=1, max_source_length=16)
    config = dataclasses.replace(small_config, decoding=decoding, data=Builtin(num_pairs=300))
    save_untrained_run(workdir, config, ["The black cat <sleeps>."])
    (workdir / "metrics.jsonl").write_text(METRICS)
    return workdir


class Page(HTMLParser):
    """The pictures of a page, and what it leads to."""

    def __init__(self, text: str):
        super().__init__()
        self.images, self.links, self.objects = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "img":
            self.images.append(found)
        elif tag == "object":
            self.objects.append(found)
        elif tag == "a":
            self.links.append(found["href"])


def test_one_command_draws_all(run, capsys, monkeypatch):
    """All are laid out, which warns where there is no room; other tests look at what files hold."""

    def lay_out(picture, kind):
        picture._settle()
        return kind.encode()

    monkeypatch.setattr(pictures.Picture, "encode", lay_out)
    folder = run / "inspection"
    inspect.main(["--workdir", str(run), "--source", "The <cat>."])
    said = capsys.readouterr().out
    names = {path.name for path in folder.iterdir()}
    stems = {
        "curves", "schedule", "model", "positions", "sentence_1_search",
        *(f"sentence_1_{kind}" for kind in ("encoder", "decoder", "cross")),
        *(f"sentence_1_{kind}_head" for kind in ("encoder", "decoder", "cross")),
    }  # fmt: skip
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")} | {
        "index.html",
        "explorer.html",
    }
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert {each["src"] for each in page.images} == {
        "model.png",
        *(f"{stem}.svg" for stem in stems - {"model"}),
    }
    assert [each["data"] for each in page.objects] == ["model.svg"]
    assert all(len(each["alt"]) > 20 for each in page.images)
    assert {link for link in page.links if not link.startswith("#")} <= names
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "The &lt;cat&gt;. →" in text and "<cat>" not in text
    assert "prefers-color-scheme: dark" in text
    assert f"Written to {folder}: 11 pictures" in said and f"  {folder / 'index.html'}" in said
    assert re.search(
        rf"^  \S*flax-transformer inspect --workdir {run} --source", said, re.MULTILINE
    )


def test_without_a_source_sentences_of_the_test_split_that_fit():
    config = SimpleNamespace(data=Builtin(num_pairs=300))
    found = inspect.test_sentences(config, 3)
    assert len(found) == 3 and all(5 <= len(each.split()) < 15 for each in found)
    everything = inspect.test_sentences(config, 10**6)
    assert len(everything) > 20 and everything[:3] == found


def test_a_recurrent_model_and_given_targets(run, small_config, tmp_path, monkeypatch):
    """No position encodings, one alignment, no search of a translation that is given."""
    drawn = []
    monkeypatch.setattr(pictures.Picture, "save", lambda self, path: drawn.append(path.name))
    model = SimpleNamespace(
        workdir=run, config=recurrent(small_config, "dot"), params=None, tokenizer=None
    )
    one = pictures.Sentence("a", "b")

    def too_long(model, source):
        raise UserError(f"{source} is too long")

    monkeypatch.setattr(pictures, "trace_search", too_long)
    weights = attention_of_one_head()
    monkeypatch.setattr(pictures, "attend", lambda *arguments: weights)
    gallery = pictures.draw_gallery(model, [one], tmp_path)
    assert [name for name in drawn if name.endswith(".svg")] == [
        "sentence_1_cross_head.svg", "curves.svg", "schedule.svg", "model.svg",
    ]  # fmt: skip
    assert gallery.notes == [
        "Sentence 1 has no search, and is not in the explorer: a is too long",
        "A recurrent model reads in order: there are no position encodings to show.",
    ]
    text = (tmp_path / "index.html").read_text()
    assert all(note in text for note in gallery.notes) and "explorer.html" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def attention_of_one_head():
    pieces = ("▁a", "</s>")
    cross = np.eye(2, dtype=np.float32)[None, None]
    return Attention(
        source=pieces, target=pieces, inputs=("<s>", "▁a"), encoder=None, decoder=None, cross=cross
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--source a b --target c", "2 of --source and 1 of --target: give a target for each"),
        ("--target c", "0 of --source and 1 of --target"),
        ("--sentences 0", "--sentences is 0"),
        ("--compare {run}/checkpoints", "checkpoints has no metrics.jsonl: name the folder of"),
        ("--output {run}/config.json --source a", "--output .*config.json cannot be a folder"),
    ],
)
def test_mistakes_are_named_before_the_model_is_loaded(run, words, message, monkeypatch):
    monkeypatch.setattr(pictures, "TrainedModel", None)
    with pytest.raises(UserError, match=message):
        inspect.main(["--workdir", str(run), *words.format(run=run).split()])


def test_an_empty_source_is_named(run):
    with pytest.raises(UserError, match="--source number 2 is empty"):
        inspect.main(["--workdir", str(run), "--source", "a", " "])
