"""The explorer's live page in a real browser, with a server that answers as a model would."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.browser import Watched, chromium, token
from support.descriptions import TARGET, describe

from flax_transformer.inspection.explorer import content_security_policy, live_page


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


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
        if "odd" in question["source"]:
            return self._send(b"{}", status=503)
        words = [f"▁{word}" for word in question["prefix"].split()]
        target = [*words, *TARGET[len(words) :]]
        # Of a last word that may be unfinished the search is told the characters only.
        forced = len(words) - bool(words and not question["prefix"].endswith(" "))
        answer = describe(target=target, forced=forced, text=question["source"])
        answer["prefix"] = question["prefix"]
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
    page.locator("#candidates", has_text="In the place of “dort”").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "▁dort"
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
    prefixes = ["", "Le other2", "Le ", "Le other1", "La", ""]
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
    type_sentence(page, "odd")
    page.locator("#ask-error", has_text="answered with status 503").wait_for()
    page.route("**/explore", lambda route: route.abort())
    type_sentence(page, "gone")
    page.locator("#ask-error", has_text="cannot be reached").wait_for()
    page.unroute("**/explore")
    type_sentence(page, "fine")
    page.locator("#translation", has_text="fine").wait_for()
    assert not page.locator("#ask-error").is_visible()


def test_an_answer_that_is_no_longer_asked_for_is_not_shown(live, server):
    page = live.page
    page.evaluate(
        "{ window.said = new Set(); const error = document.getElementById('ask-error');"
        "const note = () => said.add(error.textContent);"
        "new MutationObserver(note).observe(error, {childList: true}) }"
    )
    type_sentence(page, "slow")
    type_sentence(page, "quick")
    page.locator("#translation", has_text="quick").wait_for()
    server.slow.set()
    page.wait_for_timeout(150)
    assert page.locator("#translation").text_content().startswith("quick")
    assert page.evaluate("[...said]") in ([], [""])
    assert [question["source"] for _, question in server.questions] == ["slow", "quick"]
