"""Pictures show the numbers that they are of, in words too, and become files."""

import dataclasses
import json
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.text import Text

import flax_transformer as ft
from flax_transformer.config import OptimizerConfig, TrainingConfig
from flax_transformer.errors import UserError
from flax_transformer.inspection import drawing
from flax_transformer.inspection.attention import Attention
from flax_transformer.inspection.chosen_head import choose_head
from flax_transformer.inspection.drawing import Picture, fonts_for, new_picture, shorten
from flax_transformer.inspection.heat_maps import tile
from flax_transformer.inspection.positions import products_by_distance
from flax_transformer.inspection.schedule import rates_by_step
from flax_transformer.inspection.search_picture import best_path
from flax_transformer.inspection.search_tree import SearchNode, SearchTree
from flax_transformer.models.transformer import sinusoids
from flax_transformer.translation.hypotheses import Hypothesis

SOURCE = ("▁The", "▁black", "▁cat", "</s>")
TARGET = ("▁Le", "▁chat", "▁noir", "</s>")


def texts(picture: Picture) -> list[str]:
    """What stands in the picture, which need not be drawn for that."""
    for axes in picture.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # which get their text when asked for
    return [each.get_text() for each in picture.findobj(Text) if each.get_visible()]


def texts_of_svg(picture: Picture) -> list[str]:
    """What stands in the picture's SVG."""
    root = ElementTree.fromstring(picture.encode("svg"))
    return ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]


def attention(layers=2, heads=3, source=SOURCE, target=TARGET, **others) -> Attention:
    """Of which the heads look nowhere special, but for the last of the first layer's cross."""
    s, t = len(source), len(target)
    cross = np.full((layers, heads, t, s), 1 / s, np.float32)
    order = [0, 2, 1, 3] if s == t == 4 else range(t)
    cross[0, -1] = np.eye(s)[np.array(order) % s]
    inputs = ("<s>", *target[:-1])
    causal = np.tri(t, dtype=np.float32) / np.arange(1, t + 1)[:, None]
    found = {
        "encoder": np.full((layers, heads, s, s), 1 / s, np.float32),
        "decoder": np.broadcast_to(causal, (layers, heads, t, t)),
        "cross": cross,
    } | others
    return Attention(source=source, target=target, inputs=inputs, **found)


def test_the_chosen_head_is_the_one_whose_look_tells_most():
    chosen = choose_head(attention().cross)
    assert (chosen.layer, chosen.head) == (1, 3)
    np.testing.assert_allclose([chosen.bits, chosen.most], [2, 2], rtol=1e-5)
    # One that always looks at the end, however sure of it, tells nothing.
    always_last = np.broadcast_to(np.eye(4, dtype=np.float32)[3], (1, 1, 4, 4))
    assert abs(choose_head(always_last).bits) < 1e-5


def test_maps_stand_in_rows_of_layers():
    weights = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
    whole = tile(weights, [2], [1, 3], gap=1)
    nothing = np.nan
    np.testing.assert_array_equal(whole, [[12, 13, nothing, 20, 21], [14, 15, nothing, 22, 23]])


def test_all_heads_and_one_head():
    found = attention()
    many = found.plot()
    assert isinstance(many, Figure) and many.caption and "6 heat maps" in many.alt
    shown = texts(many)
    assert [f"layer {i}, head {j}" for i in (1, 2) for j in (1, 2, 3)] == [
        text for text in shown if text.startswith("layer")
    ]
    assert shown.count("▁noir") == 2 and shown.count("▁cat") == 3
    assert "framed" in many.caption and "framed" not in found.plot(layer=2).caption
    one = found.plot("cross", 1, 3)
    assert {"Cross-attention, layer 1, head 3", "100", "▁black"} <= set(texts(one))
    assert "chat looks at cat; noir looks at black" in one.alt
    assert "mutual information" in one.caption and "2.0 bits of 2.0" in one.caption
    assert "mutual information" not in found.plot("cross", 1, 1).caption
    assert len([x for x in texts(found.plot(layer=2)) if x.startswith("layer")]) == 3
    assert "<s>" in texts(found.plot("decoder", 1, 1))
    # Weights of 0.25 at most are shown on a scale that they fill.
    assert [kind.axes[0].images[0].get_clim()[1] for kind in (one, found.plot("encoder"))] == [
        1,
        0.5,
    ]


def test_a_recurrent_model_has_one_map_and_others_may_have_none():
    found = attention(layers=1, heads=1, encoder=None, decoder=None)
    assert "Alignment" in texts(found.plot())
    with pytest.raises(UserError, match=r"kind is 'encoder'.* there is: cross"):
        found.plot("encoder")
    with pytest.raises(UserError, match="no attention at all"):
        dataclasses.replace(found, cross=None).plot()
    with pytest.raises(UserError, match=r"layer is 2, .* from 1 to 1"):
        found.plot(layer=2)
    with pytest.raises(UserError, match="head is 0"):
        found.plot(head=0)


def test_forty_pieces_have_no_room_in_48_maps_but_in_one():
    long = tuple(f"▁piece{number}" for number in range(40))
    found = attention(6, 8, long, long)
    many = found.plot()
    assert "no room" in many.caption and "▁piece39" not in texts(many)
    assert texts(found.plot("cross", 1, 8)).count("▁piece39") == 2


def test_scripts_of_others_are_written_and_what_no_font_has_is_named():
    hostile = ("▁שלום", "▁العربية", "$x^2$", "\U000f1234", "<&>", "a" * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = attention(1, 1, hostile, hostile).plot()
        assert picture.encode("png").startswith(b"\x89PNG")
    shown = texts_of_svg(picture)
    assert {"▁שלום", "▁العربية", r"$x^2$", "<&>", "a" * 13 + "…"} <= set(shown)
    assert picture.missing == ""  # of a private character nobody expects a picture
    assert shorten("$") == r"\$"


def test_fonts_are_found_and_what_none_has_is_named(monkeypatch):
    assert fonts_for("a▁éя") == (["DejaVu Sans", "sans-serif"], "")
    assert not any("Last Resort" in name for name, _ in drawing._installed())  # has but boxes
    monkeypatch.setattr(drawing, "_installed", lambda: [])
    assert fonts_for("a猫b猫") == (["DejaVu Sans", "sans-serif"], "猫")
    monkeypatch.setattr(drawing, "_installed", lambda: [("Cats", "/absent"), ("Dogs", "/absent")])
    monkeypatch.setattr(
        drawing, "_characters", lambda path: {ord("猫")} if "absent" in path else {}
    )
    assert fonts_for("猫") == (["DejaVu Sans", "Cats", "sans-serif"], "")
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = attention(1, 1, ("▁猫", "</s>"), ("▁a", "</s>")).plot()
        assert picture.encode("png") and picture.missing in ("", "猫")


def test_pictures_are_alike_in_whatever_style_the_program_has():
    plain = attention().plot().encode("svg")
    with style.context({"font.size": 30, "figure.facecolor": "black", "svg.fonttype": "path"}):
        assert attention().plot().encode("svg") == plain


def test_files_are_written_whole_and_a_notebook_gets_a_picture(tmp_path):
    with new_picture(2, 1) as picture:
        picture.subplots().plot([1, 2])
    picture.describe("caption", "what is seen")
    for name in ("a.svg", "a.png"):
        picture.save(tmp_path / name)
    assert "what is seen" in (tmp_path / "a.svg").read_text()
    assert picture._repr_png_() == (tmp_path / "a.png").read_bytes()
    with pytest.raises(UserError, match="cannot be written"):
        picture.save(tmp_path / "absent" / "a.png")


@pytest.fixture
def run(tmp_path):
    """Makes the metrics of a run of that name."""

    def make(name: str, *lines: dict):
        (tmp_path / name).mkdir(parents=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text)
        return tmp_path / name

    return make


TRAIN = {"step": 5, "kind": "train", "loss": 3.0, "perplexity": 9.0, "learning_rate": 1e-3}
VALIDATION = {"step": 10, "kind": "validation", "loss": 2.5, "perplexity": 7.0, "bleu": 31.25}


def test_curves_are_those_of_the_metrics(run):
    picture = ft.plot_curves(
        run("one", TRAIN, TRAIN | {"step": 10, "loss": float("nan")}, VALIDATION)
    )
    panels = {axes.get_title(loc="left"): axes for axes in picture.axes}
    assert len(panels) == 6
    loss = panels["loss, nats per token"].get_lines()
    np.testing.assert_array_equal(loss[0].get_xydata(), [[5, 3], [10, np.nan]])
    np.testing.assert_array_equal(loss[1].get_xydata(), [[10, 2.5]])
    assert panels["perplexity"].get_yscale() == "log"
    assert "loss 2.5, BLEU 31.25" in picture.alt
    assert texts(picture).count("not measured yet") == 2  # accuracy, and the gradient's norm


def test_curves_of_several_runs_are_told_apart(run):
    folders = [run("a/run", TRAIN, VALIDATION), run("b/run", TRAIN)]
    shown = texts(ft.plot_curves(*folders))
    assert set(map(str, folders)) <= set(shown)
    assert "c" in texts(ft.plot_curves(folders[0], run("c", TRAIN)))
    one_step = ft.plot_curves(run("short", TRAIN))
    one_step.draw_without_rendering()  # which warns where there is no room
    assert one_step.axes[0].get_xlim()[0] == 0
    with pytest.raises(UserError, match="named twice"):
        ft.plot_curves(folders[0], folders[0])
    with pytest.raises(UserError, match="has no step in it"):
        ft.plot_curves(run("empty"))
    with pytest.raises(UserError, match="at least one run"):
        ft.plot_curves()


def test_schedule_rises_to_its_peak_and_falls_to_zero(small_config):
    config = dataclasses.replace(
        small_config,
        optimizer=OptimizerConfig(warmup_steps=400, cooldown_steps=1000),
        training=TrainingConfig(steps=4001),
    )
    steps, rates = rates_by_step(config)
    peak = (16 * 400) ** -0.5
    np.testing.assert_allclose(rates[steps == 400], peak, rtol=1e-5)
    np.testing.assert_allclose(rates[0], peak / 400, rtol=1e-4)
    np.testing.assert_allclose(rates[steps == 1600], peak / 2, rtol=1e-3)
    assert rates.max() == rates[steps == 400] and rates[-1] < peak / 1000
    shown = texts(ft.plot_schedule(config))
    assert {"0.013 at step 400", "cool-down"} <= {text.strip() for text in shown}
    assert {"one", "two"} <= set(texts(ft.plot_schedule({"one": config, "two": config})))


def test_positions_by_distance(small_config, random_params):
    mean, lowest, highest = products_by_distance(np.asarray(sinusoids(20, 16)))
    rates = 10_000.0 ** (-np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(mean, [np.cos(rates * k).mean() for k in range(20)], atol=1e-5)
    np.testing.assert_allclose(lowest, highest, atol=1e-5)
    assert "Learned" not in texts(ft.plot_positions(small_config))
    learned = dataclasses.replace(
        small_config, model=dataclasses.replace(small_config.model, positions="learned")
    )
    picture = ft.plot_positions(learned, random_params(learned))
    assert {"Sinusoids", "Learned", "never trained"} <= set(texts(picture))
    with pytest.raises(UserError, match="no positions"):
        ft.plot_positions(dataclasses.replace(small_config, model=ft.RecurrentConfig()))
    with pytest.raises(UserError, match="positions is 1"):
        ft.plot_positions(small_config, positions=1)


BEST = Hypothesis("a b", -0.5, 2)


def search_tree(steps=2, hypotheses=(BEST,), prefix_length=0) -> SearchTree:
    """The second of two candidates lives on; at last it ends, best of all."""

    def node(piece, parent, score, fate):
        return SearchNode(
            piece=piece, token=7, parent=parent, log_probability=score, score=score, fate=fate
        )

    first = (node("▁a", None, -0.1, "pruned"), node("▁b", None, -0.3, "live"))
    middle = (node("▁c", 1, -0.4, "pruned"), node("▁d", 1, -0.4, "live"))
    last = (node("▁e", 1, -0.4, "live"), node("</s>", 1, -0.5, "finished"))
    return SearchTree(
        source=SOURCE,
        steps=(first, *[middle] * (steps - 2), last),
        hypotheses=hypotheses,
        prefix_length=prefix_length,
    )


def test_the_best_path_leads_back_through_parents():
    assert best_path(search_tree()) == [(0, 1), (1, 1)]
    assert best_path(search_tree(4, hypotheses=())) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    nothing = dataclasses.replace(search_tree(), steps=(), hypotheses=())
    assert best_path(nothing) == []
    assert nothing.plot().encode("svg")


def test_a_search_is_shown_with_what_was_pruned():
    picture = search_tree(prefix_length=1).plot()
    assert isinstance(picture, Figure)
    shown = texts(picture)
    assert {"▁a", "▁b", "▁e", "</s>", "-0.30", "step 1 (given)", "step 2"} <= set(shown)
    assert "pieces: ▁b </s>." in picture.alt
    assert "pruned: not among the best" in [
        text.get_text() for text in picture.legends[0].get_texts()
    ]


def test_a_long_search_goes_on_below():
    picture = search_tree(14).plot()
    shown = texts(picture)
    assert shown.count("step 12") == 2 and shown.count("step 13") == 1
    assert picture.get_size_inches()[1] > search_tree(12).plot().get_size_inches()[1]
