"""The picture of the model is drawn from its parameters."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from flax_transformer.config import Config, MeshConfig, TransformerConfig
from flax_transformer.config.shipped import load_config_file
from flax_transformer.models.initialization import abstract_params
from flax_transformer.parallel.sharding import build_mesh

ROOT = Path(__file__).parents[2]
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def draw():
    return runpy.run_path(str(ROOT / "docs" / "draw_model.py"))["draw"]


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_boxes_stand_for_every_parameter(draw, tmp_path, norm):
    config = Config(model=TransformerConfig(norm=norm, num_encoder_layers=2, num_decoder_layers=3))
    picture = tmp_path / "model.svg"
    total = draw(config, picture)
    params = abstract_params(config, build_mesh(MeshConfig(data=1), jax.devices()[:1]))
    assert total == sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
    text = picture.read_text()
    assert "2 ×" in text and "3 ×" in text and f"{total:,} parameters" in text


def test_the_picture_of_the_readme_is_that_of_the_base_model(draw, tmp_path):
    picture = tmp_path / "model.svg"
    draw(load_config_file(ROOT / "configs" / "wmt_base.py"), picture)
    kept = (ROOT / "docs" / "transformer.svg").read_text()
    words = [line.strip() for line in picture.read_text().splitlines() if "<text" in line]
    assert len(words) > 30
    assert words == [line.strip() for line in kept.splitlines() if "<text" in line]
