"""The picture of the model is drawn from its parameters and its classes."""

import re
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.text import Text
from support.samples import recurrent

from flax_transformer.config import Config, MeshConfig, TransformerConfig
from flax_transformer.config.shipped import load_config_file
from flax_transformer.inspection.drawing import Picture
from flax_transformer.inspection.model_diagram import plot_model
from flax_transformer.inspection.model_parts import repository, sketch_model, source_link
from flax_transformer.models.initialization import abstract_params
from flax_transformer.models.transformer import FeedForward
from flax_transformer.parallel.sharding import build_mesh

ROOT = Path(__file__).parents[2]
NORMS = {
    norm: TransformerConfig(
        norm=norm, positions="learned", num_encoder_layers=2, num_decoder_layers=3, d_model=16
    )
    for norm in ("post", "pre")
}


def text_of(svg: str) -> list[str]:
    """What a reader can read, without what leads elsewhere or says who has drawn it."""
    return [line.strip() for line in svg.splitlines() if "<text" in line]


def words_of(picture: Picture) -> str:
    return "\n".join(text.get_text() for text in picture.findobj(Text))


@pytest.mark.parametrize("variant", [*NORMS, "no attention", "concat", "multi_head"])
def test_boxes_stand_for_every_parameter(variant, small_config):
    model = NORMS.get(variant)
    config = Config(model=model) if model else recurrent(small_config, variant)
    params = abstract_params(config, build_mesh(MeshConfig(data=1), jax.devices()[:1]))
    counted = sketch_model(config).counted
    assert counted == sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def test_every_box_leads_to_its_class():
    picture = plot_model(Config(model=NORMS["pre"]), links="https://example.org/")
    svg = picture.encode("svg").decode()
    links = set(re.findall(r'xlink:href="https://example.org/(\S+?)#L(\d+)-L(\d+)"', svg))
    found = set()
    for name, first, last in links:
        lines = (ROOT / name).read_text().splitlines()[int(first) - 1 : int(last)]
        found.add(lines[0])
        assert lines[-1].startswith("    ")
    assert {line.partition("(")[0] for line in found} == {
        f"class {name}"
        for name in (
            "Embedding", "EncoderLayer", "DecoderLayer", "MultiHeadAttention", "FeedForward",
            "LayerNorm",
        )
    }  # fmt: skip
    text = "\n".join(text_of(svg))
    assert "2 ×" in text and "3 ×" in text and "query (d,h,k)" in text
    assert f"{sketch_model(Config(model=NORMS['pre'])).counted:,} parameters" in text


def test_source_is_linked_where_the_package_says_that_it_is(monkeypatch):
    urls = ["Homepage, https://example.org", "Repository, https://example.org/code/"]
    monkeypatch.setattr(
        "flax_transformer.inspection.model_parts.metadata.metadata",
        lambda _: type("Message", (), {"get_all": lambda self, name: urls})(),
    )
    assert repository() == "https://example.org/code/blob/main"
    line = source_link(FeedForward)
    assert line.startswith("https://example.org/code/blob/main/flax_transformer/models/transfo")
    urls.clear()
    assert source_link(FeedForward).startswith((ROOT / "flax_transformer").as_uri())


def test_an_encoder_of_two_directions_and_a_decoder_that_attends(small_config):
    config = recurrent(small_config, "concat")
    sketch = sketch_model(config)
    (stage,) = sketch.encoder
    assert [box.title for box in stage.rows[0]] == ["LSTM, forward", "LSTM, backward"]
    # Of 16 units each direction has 8, which are not the model's width.
    assert stage.rows[0][0].parameters == "input (d,g,u), recurrent (u,g,u), bias (g,u)"
    text = words_of(plot_model(config))
    assert "memory (b,s,d)" in text and "last states" in text and "u=8" in text
    assert "memory" not in words_of(plot_model(recurrent(small_config, "no attention")))


def test_the_picture_of_the_readme_is_that_of_the_base_model():
    picture = plot_model(load_config_file(ROOT / "configs" / "wmt_base.py"), links="..")
    kept = (ROOT / "docs" / "transformer.svg").read_text()
    drawn = picture.encode("svg").decode()
    assert len(text_of(drawn)) > 30
    for look_at in (text_of, lambda svg: Counter(re.findall(r"<(\w+)", svg))):
        assert look_at(drawn) == look_at(kept), (
            "draw it anew: python -m flax_transformer.inspection.model_diagram --links .."
        )
