"""The explorer's page in a real browser, from a file and from a server."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from support.browser import Watched, chromium
from support.descriptions import SOURCE, TARGET, describe, text_of

from flax_transformer.inspection.explorer import content_security_policy, live_page, saved_page

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


def token(page, line: str, index: int):
    return page.locator(f"#{line} > li").nth(index)


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
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.dataset.step") == "0"
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
    token(page, "line-target", 7).click()
    assert "writing “dort”" in page.locator("#readout").text_content()
    first, second = (page.locator("#tree .node").nth(index).bounding_box() for index in (0, 8))
    assert second["y"] > first["y"] and second["x"] == first["x"]


def test_colours_follow_the_reader_and_paper_is_white(visit):
    page = visit("two")
    canvas = page.locator(".map canvas").first
    seen = {}
    for name, media in {
        "light": {"color_scheme": "light"},
        "dark": {"color_scheme": "dark"},
        "paper": {"media": "print"},
    }.items():
        page.emulate_media(**media)
        page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        seen[name] = (background, canvas.evaluate("canvas => canvas.toDataURL()"))
    assert seen["light"] == seen["paper"] != seen["dark"]
    assert seen["light"][0] == "rgb(253, 253, 252)" and seen["dark"][1] != seen["light"][1]


class Translations(BaseHTTPRequestHandler):
    """Serves the live page, and answers as a model would that keeps what it is given."""

    def do_GET(self):
        self._send(live_page().encode(), "text/html; charset=utf-8")

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.questions.append((self.path, question))
        if question["source"] == "slow":
            self.server.slow.wait(20)
        if "wrong" in question["source"]:
            return self._send(json.dumps({"error": "<b>wrong</b>"}).encode(), status=422)
        if "broken" in question["source"]:
            return self._send(b"Internal Server Error", "text/plain", status=500)
        words = [f"▁{word}" for word in question["prefix"].split()]
        target = [*words, *TARGET[len(words) :]]
        answer = describe(target=target, forced=len(words), text=question["source"])
        self._send(json.dumps(answer).encode())

    def _send(self, body: bytes, kind: str = "application/json", status: int = 200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", content_security_policy(live=True))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Translations) as found:
        found.slow = threading.Event()
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def live(browser, server):
    server.questions = []
    watched = Watched(browser.new_page())
    address = f"http://127.0.0.1:{server.server_port}/"
    watched.page.goto(address)
    yield watched
    watched.page.close()
    assert all(each.startswith(address) for each in watched.requests)
    assert {each for each in watched.requests if each != address} <= {f"{address}explore"}


def type_sentence(page, text: str) -> None:
    page.get_by_label("Sentence to translate").fill(text)
    page.keyboard.press("Enter")


def test_a_typed_sentence_is_translated_and_its_beginning_can_be_fixed(live, server):
    page = live.page
    assert not page.locator("#shown").is_visible()
    page.get_by_label("Beam size").fill("3")
    type_sentence(page, "The cat sleeps here.")
    page.get_by_text("Le chat dort ici.").first.wait_for()
    assert (
        page.locator("#tree .node").count() == 24
        and page.locator("#ask-status").text_content() == ""
    )
    token(page, "line-target", 1).click()
    page.locator("#candidates button", has_text="other2").click()
    page.locator("#translation", has_text="Le other2 dort").wait_for()
    assert page.get_by_label("must begin with").input_value() == "Le other2"
    assert page.locator("#line-target .fixed").all_text_contents() == ["▁Le", "▁other2"]
    token(page, "line-target", 0).click()
    assert "was fixed" in page.locator("#candidates").text_content()
    page.get_by_text("Keep “Le” and translate on").click()
    page.locator("#translation", has_text="Le chat").wait_for()
    page.locator("#tree .node", has_text="other1").first.click()
    page.get_by_role("button", name="Translate on from here").click()
    page.locator("#translation", has_text="Le other1").wait_for()
    page.get_by_label("must begin with").fill("La")
    page.keyboard.press("Enter")
    page.locator("#translation", has_text="La chat").wait_for()
    page.get_by_role("button", name="Let go").click()
    page.locator("#translation", has_text="Le chat").wait_for()
    prefixes = ["", "Le other2", "Le", "Le other1", "La", ""]
    source = "The cat sleeps here."
    assert server.questions == [
        ("/explore", {"source": source, "prefix": prefix, "beam_size": 3}) for prefix in prefixes
    ]
    assert live.complaints == []
    page.get_by_label("must begin with").fill("Le")
    type_sentence(page, "Another one.")
    page.locator("#translation", has_text="Another one.").wait_for()
    assert server.questions[-1][1]["prefix"] == ""


def test_what_goes_wrong_is_said(live):
    page = live.page
    type_sentence(page, "wrong")
    page.locator("#ask-error", has_text="<b>wrong</b>").wait_for()
    assert page.locator("#ask-error b").count() == 0
    type_sentence(page, "broken")
    page.locator("#ask-error", has_text="answered with status 500").wait_for()
    page.route("**/explore", lambda route: route.abort())
    type_sentence(page, "gone")
    page.locator("#ask-error", has_text="cannot be reached").wait_for()
    page.unroute("**/explore")
    type_sentence(page, "fine")
    page.locator("#translation", has_text="fine").wait_for()
    assert not page.locator("#ask-error").is_visible()


def test_an_answer_that_is_no_longer_asked_for_is_not_shown(live, server):
    page = live.page
    type_sentence(page, "slow")
    type_sentence(page, "quick")
    page.locator("#translation", has_text="quick").wait_for()
    server.slow.set()
    page.wait_for_timeout(150)
    assert page.locator("#translation").text_content().startswith("quick")
    assert page.locator("#ask-error").text_content() == ""
    assert [question["source"] for _, question in server.questions] == ["slow", "quick"]
