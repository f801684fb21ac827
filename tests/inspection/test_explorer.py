"""The explorer's page in a real browser, as a file of saved sentences."""

import base64

import numpy as np
import pytest
from support.browser import Watched, chromium, token
from support.descriptions import SOURCE, TARGET, describe, text_of

from flax_transformer.inspection.explorer import saved_page

HOSTILE = (
    "▁<script>document.title='taken'</script>",
    "▁<img",
    "▁src=x",
    "▁onerror=alert(1)>",
    "▁</script><b>",
    "▁😀👩‍👩‍👧",
    "▁السلام",
    "▁&amp;\u202e\u2028",
)
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pages to open, by name."""
    sentences = {
        "two": [describe(), describe(["▁Hello", "."], ["▁Bonjour", "."])],
        "hostile": [describe(HOSTILE, HOSTILE)],
        "recurrent": [describe(kinds=["cross"], layers=1, heads=1)],
        "none": [describe(kinds=[])],
        "untraced": [describe() | {"search": None}],
        "large": [describe(SOURCE * 5, TARGET * 6, layers=6, heads=8, beam_size=4)],
    }
    folder = tmp_path_factory.mktemp("pages")
    for name, each in sentences.items():
        (folder / f"{name}.html").write_text(saved_page(each, about="of <tests>"), encoding="utf-8")
    return folder


@pytest.fixture
def visit(browser, files):
    """Opens a page; in the end it must have asked for nothing but itself, and not complained."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened = []

    def open_page(name: str):
        watched = Watched(context.new_page())
        opened.append((watched, (files / f"{name}.html").as_uri()))
        watched.page.goto(opened[-1][1])
        return watched.page

    yield open_page
    context.close()
    for watched, address in opened:
        assert watched.requests == [address]
        assert watched.complaints == []


def weights_of(sentence: dict, kind: str, layer: int, head: int) -> np.ndarray:
    packed = sentence["attention"][kind]
    levels = np.frombuffer(base64.b64decode(packed["weights"]), np.uint8)
    return levels.reshape(*(packed[name] for name in ("layers", "heads", "rows", "columns")))[
        layer, head
    ]


def shades(page, line: str) -> list[float]:
    return page.eval_on_selector_all(
        f"#{line} > li",
        "items => items.map(item => Number(item.style.getPropertyValue('--weight')))",
    )


def choose_head(page, layer: int, head: int) -> None:
    page.locator(f".map[data-layer='{layer}'][data-head='{head}']").click()


def test_pointing_at_a_word_shows_its_weights(visit):
    page = visit("two")
    everything = page.locator("#bands path").count()
    choose_head(page, 0, 1)
    row = weights_of(describe(), "cross", 0, 1)[2] / 255
    token(page, "line-target", 2).hover()
    best = [*SOURCE, "</s>"][row.argmax()]
    readout = page.locator("#readout").text_content()
    assert readout.startswith(f"Layer 1, head 2: writing “dort”, it looks at “{text_of([best])}”")
    assert f"{round(row.max() * 100)} %" in readout
    for line in ("line-source", "columns"):
        np.testing.assert_allclose(shades(page, line), row, atol=1e-3)
    assert page.locator("#bands path").count() == (row >= 0.01).sum()
    page.mouse.move(5, 5)
    assert "all weights" in page.locator("#readout").text_content()
    assert sum(shades(page, "columns")) == 0
    assert everything > 10
    column = weights_of(describe(), "cross", 0, 1)[:, 1] / 255
    token(page, "columns", 1).hover()
    assert "“cat” is looked at by" in page.locator("#readout").text_content()
    np.testing.assert_allclose(shades(page, "rows"), column, atol=1e-3)
    strips = page.locator("#rows .strip span").evaluate_all(
        "cells => cells.map(cell => Number(cell.style.getPropertyValue('--weight')))"
    )
    heads = [weights_of(describe(), "cross", 0, head)[:, 1] / 255 for head in range(3)]
    np.testing.assert_allclose(np.reshape(strips, (6, 3)).T, heads, atol=1e-3)


def test_a_chosen_word_stays_until_it_is_let_go(visit):
    page = visit("two")
    token(page, "rows", 1).click()
    page.mouse.move(5, 5)
    readout = page.locator("#readout")
    assert "writing “chat”" in readout.text_content()
    assert token(page, "line-target", 1).get_attribute("aria-selected") == "true"
    considered = page.locator("#candidates li").all_text_contents()
    assert considered[0] == f"▁chat{round(np.exp(-0.1) * 100)} %" and len(considered) == 4
    page.get_by_label("Encoder").check()
    assert "all weights" in readout.text_content()
    page.get_by_label("Cross").check()
    token(page, "rows", 1).click()
    token(page, "rows", 1).click()
    page.mouse.move(5, 5)
    assert "all weights" in readout.text_content()
    token(page, "line-target", 0).click()
    page.keyboard.press("Escape")
    page.mouse.move(5, 5)
    assert "all weights" in readout.text_content()
    page.locator("#choice").select_option("1")
    assert page.locator("#line-target > li").all_text_contents() == ["▁Bonjour", ".", "</s>"]


def test_keys_do_what_the_mouse_does(visit):
    page = visit("two")
    readout = page.locator("#readout")
    page.locator("#choice").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert "writing “chat”" in readout.text_content()
    outline = "getComputedStyle(document.activeElement).outlineWidth"
    assert page.evaluate(outline) == "3px"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    assert page.get_by_label("Decoder").is_checked()
    assert "after “chat”, before writing “dort”" in readout.text_content()
    token(page, "rows", 3).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert "is looked at by" in readout.text_content()
    assert page.evaluate("document.activeElement.parentElement.id") == "columns"
    page.locator(".map[aria-checked='true']").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert (page.locator("#layer").input_value(), page.locator("#head").input_value()) == ("0", "2")
    assert "Layer 1, head 3" in readout.text_content()
    assert page.locator(".map[tabindex='0']").count() == 1


def test_every_head_has_its_map_and_its_entropy(visit):
    page = visit("two")
    sentence = describe()
    assert page.locator(".map").count() == 2 * (3 + 1)
    entropies = page.locator(".map .entropy").all_text_contents()
    expected = np.asarray(sentence["entropy"]["cross"]).ravel()
    np.testing.assert_allclose([float(each) for each in entropies], expected, atol=0.006)
    drawn = page.locator(".map[data-layer='1'][data-head='2'] canvas").evaluate(
        "each => [...each.getContext('2d').getImageData(0, 0, each.width, each.height).data]"
    )
    brightness = np.reshape(drawn, (6, 7, 4))[..., :3].sum(axis=-1)
    weights = weights_of(sentence, "cross", 1, 2).astype(int)
    order = np.argsort(weights, axis=None)
    assert (np.diff(brightness.ravel()[order]) <= 0).all()
    page.get_by_text("as a table").click()
    page.locator("#table tbody td").first.wait_for()
    cells = page.locator("#table tbody td").all_text_contents()
    mean = np.mean([weights_of(sentence, "cross", 1, head) for head in range(3)], axis=0) / 255
    np.testing.assert_allclose([float(each or 0) for each in cells], mean.ravel() * 100, atol=0.51)


def test_the_search_is_a_tree(visit):
    page = visit("two")
    nodes = page.locator("#tree .node")
    assert nodes.count() == 6 * 4
    assert page.locator("#tree .node.path").all_text_contents()[0].startswith("▁Le")
    page.get_by_label("Show pruned branches").uncheck()
    assert nodes.count() == page.locator("#tree .node:not(.pruned)").count() < 6 * 4
    nodes.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.locator("#tree-readout").text_content().startswith("Le other1 — step 2, goes on. ")
    assert "score −0.600" in page.locator("#tree-readout").text_content()
    page.set_viewport_size(PHONE)
    page.locator(".tree.upright").wait_for()
    nodes.nth(9).hover()
    assert page.locator("#tree-readout").text_content().startswith("Le other1 — ")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.step") == "0"
    page.set_viewport_size({"width": 1200, "height": 900})
    page.locator(".tree:not(.upright)").wait_for()
    page.keyboard.press("Escape")
    nodes.nth(4).hover()
    assert page.locator("#tree-readout").text_content().startswith("Le chat dort — step 3")
    assert page.locator("#tree .node.path").count() == 6
    page.locator(".hypothesis").nth(1).click()
    assert (
        page.locator(".hypothesis[aria-pressed='true'] .text").text_content() == "Le chat dort ici"
    )
    assert page.locator("#tree .node.path").last.text_content().startswith("</s>")
    assert page.locator("#tree .edge.path").count() == 4


def test_text_stays_text(visit):
    page = visit("hostile")
    assert page.title() == "Attention explorer"
    assert page.locator("#about").text_content() == "of <tests>"
    assert page.locator("#line-source > li").all_text_contents() == [*HOSTILE, "</s>"]
    for place in ("#translation bdi", ".hypothesis .text"):
        assert page.locator(place).first.text_content() == text_of(HOSTILE)
    for index in range(len(HOSTILE)):
        token(page, "line-target", index).click()
        assert page.locator("#candidates .piece").first.text_content() == HOSTILE[index]
    page.locator("#tree .node").nth(4).focus()
    assert page.locator("#tree-readout .so-far").text_content() == text_of(HOSTILE[:2])
    page.get_by_text("as a table").click()
    assert page.locator("img, main script, main b").count() == 0


def test_nothing_may_be_asked_for_and_no_text_becomes_markup(browser, files):
    """Whatever script ran there."""
    watched = Watched(browser.new_page())
    watched.page.goto((files / "two.html").as_uri())
    refusals = []
    watched.page.on("requestfailed", lambda request: refusals.append(request.failure))
    attempts = {
        "fetch('https://example.org/').catch(error => error.name)": "TypeError",
        "try { document.body.innerHTML = '<b>x</b>' } catch (error) { error.name }": "TypeError",
        "document.body.append(Object.assign(new Image(), {src: 'https://example.org'}))": None,
    }
    for script, answer in attempts.items():
        assert watched.page.evaluate(script) == answer
    assert refusals == ["csp"] * (len(watched.requests) - 1)
    assert sum("Content Security Policy" in each for each in watched.complaints) >= 3
    watched.page.close()


@pytest.mark.parametrize(
    ("name", "said"), [("recurrent", "is recurrent: it has no self-att"), ("none", "no attention")]
)
def test_what_a_model_does_not_have_is_said(visit, name, said):
    page = visit(name)
    assert said in page.locator("#attention-note").text_content()
    token(page, "line-target", 1).click()
    assert page.locator("#candidates li").count() == 4
    assert page.locator("#bands").is_visible() == (name == "recurrent")
    assert page.locator("#kinds input").count() == (name == "recurrent")
    assert page.locator("#tree .node").count() == 24


def test_a_search_that_was_not_recorded_is_said(visit):
    page = visit("untraced")
    assert page.get_by_text("was not recorded").is_visible()
    assert not page.locator("#tree").is_visible()
    token(page, "line-target", 1).click()
    assert "no record of this place" in page.locator("#candidates").text_content()


def test_a_large_model_fits_on_a_phone_and_into_two_megabytes(visit, files):
    assert (files / "large.html").stat().st_size < 2_000_000
    page = visit("large")
    page.set_viewport_size(PHONE)
    assert page.locator(".map").count() == 6 * 9
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator("#heads").evaluate("each => each.scrollWidth <= each.clientWidth")
    token(page, "line-target", 7).click()
    assert "writing “dort”" in page.locator("#readout").text_content()
    first, second = (page.locator("#tree .node").nth(index).bounding_box() for index in (0, 8))
    assert second["y"] > first["y"] and second["x"] == first["x"]


def test_colours_follow_the_reader_and_paper_is_white(visit):
    page = visit("two")
    drawn = "document.querySelector('.map canvas').toDataURL()"
    seen = {}
    for name, media in {
        "light": {"color_scheme": "light"},
        "dark": {"color_scheme": "dark"},
        "paper": {"media": "print"},
    }.items():
        before = page.evaluate(drawn)
        page.emulate_media(**media)
        if seen:  # it is drawn again soon after, in other colours
            page.wait_for_function(f"before => {drawn} !== before", arg=before)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        seen[name] = (background, page.evaluate(drawn))
    assert seen["light"] == seen["paper"] != seen["dark"]
    assert seen["light"][0] == "rgb(253, 253, 252)" and seen["dark"][1] != seen["light"][1]
