"""The server over real sockets, with a model that has not been trained."""

import asyncio
import dataclasses
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from support.served import Compilations, Started, dribble, read_all, send, until
from support.states import save_untrained_run

import flax_transformer as ft
from flax_transformer.api.model import Model
from flax_transformer.data.builtin import generate
from flax_transformer.errors import UserError
from flax_transformer.serving.limits import Limits
from flax_transformer.serving.service import Service, Watcher

pytestmark = pytest.mark.usefixtures("quick")

ROOT = Path(__file__).parents[2]
PROGRAM = "from flax_transformer.commands.main import main; main()"
LINES = ["The cat sees the dog.", "", "We eat bread and apples.", "naïve 😀 \x00 <b>", "a" * 300]
LIMITS = Limits(
    lines=40, line_characters=400, inspected_tokens=12, body_bytes=20_000, waiting_lines=200,
    connections=40, read_seconds=60.0, stop_seconds=60.0,
)  # fmt: skip
IMPATIENT = dataclasses.replace(LIMITS, read_seconds=1.0)


@pytest.fixture(scope="module")
def workdir(small_config, tmp_path_factory) -> Path:
    config = dataclasses.replace(
        small_config,
        data=ft.Builtin(num_pairs=400),
        model=dataclasses.replace(
            small_config.model, num_encoder_layers=1, num_decoder_layers=1, num_heads=2
        ),
        decoding=ft.DecodingConfig(beam_size=2, extra_length=4, max_source_length=16),
        training=ft.TrainingConfig(bleu_tokenizer="13a"),
    )
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    folder.mkdir()
    save_untrained_run(folder, config, [text for pair in generate(400)["train"] for text in pair])
    return folder


@pytest.fixture(scope="module")
def compilations() -> Compilations:
    return Compilations()


@pytest.fixture(scope="module")
def model(workdir) -> Model:
    return ft.load(workdir)


@pytest.fixture(scope="module")
def started(workdir, model, compilations):
    before = compilations.count
    service = Service(
        lambda: Model(workdir, model.config, [1, 8]), LIMITS, [2], most_lines=8,
    )  # fmt: skip
    started = Started(service, ["proxy.example"])
    started.wait_until_warm()
    assert compilations.count > before
    yield started
    started.stop()
    assert started.error is None


@pytest.fixture(scope="module")
def impatient(started):
    """Gives clients a second, in which a busy machine may not send a whole request."""
    model = started.service.model
    impatient = Started(Service(lambda: model, IMPATIENT, [2], most_lines=8))
    impatient.wait_until_warm()
    yield impatient
    impatient.stop()
    assert impatient.error is None


@pytest.fixture
def client(started):
    with httpx.Client(base_url=started.url, timeout=60, trust_env=False) as client:
        yield client


def translate(client, lines, **options) -> list:
    return translations_of(client.post("/translate", json={"lines": lines, **options}))


def translations_of(answer: httpx.Response) -> list:
    assert answer.status_code == 200, answer.text
    return answer.json()["translations"]


def error_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    return answer.json()["error"]


def test_translations_are_those_of_the_model(client, model):
    assert translate(client, LINES) == model.translate(LINES)
    assert translate(client, ["\ufeff" + LINES[0] + "\r"]) == model.translate(LINES[:1])


def test_n_best_gives_texts_with_scores(client, model):
    found = translate(client, LINES, n_best=2)
    wanted = model.search(LINES, n_best=2)
    for line, hypotheses in zip(found, wanted, strict=True):
        assert [each["text"] for each in line] == [each.text for each in hypotheses]
        scores = [each.score for each in hypotheses]
        np.testing.assert_allclose([each["score"] for each in line], scores, atol=1e-4)
    refused = client.post("/translate", json={"lines": LINES, "n_best": 3})
    assert error_of(refused, 422).startswith("n_best is 3, but must be at most 2")


def test_prefixes_begin_translations(client, started):
    prefixes = ["Le chat", "", "  ", "na", ""]
    found = translate(client, LINES, prefixes=prefixes)
    assert found == started.service.model.translate(LINES, prefixes=prefixes)
    assert found[0].startswith("Le chat") and not translate(client, LINES)[0].startswith("Le chat")
    refused = client.post("/translate", json={"lines": LINES, "prefixes": ["a"]})
    assert error_of(refused, 422).startswith("there are 5 lines and 1 prefixes")
    refused = client.post("/translate", json={"lines": ["a"], "prefixes": ["x" * 100]})
    assert "shorten it" in error_of(refused, 422)


def test_scores_are_those_of_the_model(client, model):
    references = ["Le chat voit le chien.", "x", "Nous mangeons.", "naïf", "b"]
    answer = client.post("/score", json={"sources": LINES, "references": references}).json()
    wanted = model.score(LINES, references)
    assert answer == {
        "bleu": wanted.bleu, "bleu_signature": wanted.signature, "chrf": wanted.chrf,
        "chrf_signature": wanted.chrf_signature, "translations": list(wanted.hypotheses),
    }  # fmt: skip
    refused = client.post("/score", json={"sources": LINES, "references": []})
    assert error_of(refused, 422).startswith("references has 0 elements")
    refused = client.post("/score", json={"sources": LINES, "references": ["a"]})
    assert error_of(refused, 422).startswith("there are 5 sources and 1 references")


def test_attention_is_that_of_the_model(client, model):
    for target in ("le chat", None):
        asked = {"source": "the cat"} | ({"target": target} if target else {})
        answer = client.post("/attention", json=asked).json()
        seen = model.attention("the cat", target)
        assert (tuple(answer["source"]), tuple(answer["inputs"])) == (seen.source, seen.inputs)
        for name in ("encoder", "decoder", "cross"):
            np.testing.assert_allclose(answer[name], getattr(seen, name), atol=1e-4)
    refused = client.post("/attention", json={"source": "a " * 30})
    assert "tokens, but at most 12 are looked into" in error_of(refused, 422)


def test_the_page_is_fed(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    asked = {"source": "the cat", "prefix": "le", "beam_size": 2}
    described = client.post("/explore", json=asked).json()
    assert described["source"][-1] == "</s>" and described["hypotheses"]


def test_no_request_meets_a_compilation(client, started, compilations):
    """Whatever its length, whatever comes with it, whatever is asked."""
    before = compilations.count
    words = ["the", "cat", "sees", "a", "dog", "and", "we", "eat", "bread", "in", "the", "house"]
    for count in (1, 2, 7, 9, 30):
        lines = [" ".join(words[: 1 + n % 12]) for n in range(count)]
        translate(client, lines)
        translate(client, lines, prefixes=["le"] * count)
    assert compilations.count == before
    for source in ("", "the", "a b c"):
        for ending in ({}, {"prefix": "le"} if source else {}):
            answer = client.post("/explore", json={"source": source} | ending)
            assert answer.status_code == 200, answer.text
        assert client.post("/attention", json={"source": source}).status_code == 200
        assert client.post("/attention", json={"source": source, "target": "le"}).is_success
    client.post("/score", json={"sources": LINES, "references": LINES})
    assert compilations.count == before


def test_answers_do_not_depend_on_what_else_is_asked(started, model):
    generator = random.Random(0)
    words = ["the", "cat", "sees", "a", "dog", "and", "we", "eat", "bread", "in", "the", "house"]
    asked = [
        [f"{n} " + " ".join(generator.choices(words, k=generator.randint(1, 9))) for n in range(k)]
        for k in (1, 1, 2, 3, 5, 12) * 4
    ]
    wanted = [model.translate(lines) for lines in asked]

    async def ask():
        async with httpx.AsyncClient(base_url=started.url, timeout=60, trust_env=False) as client:
            answers = [client.post("/translate", json={"lines": lines}) for lines in asked]
            return [translations_of(each) for each in await asyncio.gather(*answers)]

    batches = started.service.metrics.batches.count
    assert asyncio.run(ask()) == wanted
    assert started.service.metrics.batches.count - batches < sum(map(len, asked)) / 3


def test_what_is_not_there_is_named(client):
    assert "'/nothing' is not here: /openapi.json lists" in error_of(client.get("/nothing"), 404)
    assert error_of(client.get("/translate/"), 404)
    refused = client.get("/translate")
    assert error_of(refused, 405) == "GET is not for /translate: use POST"
    assert refused.headers["allow"] == "POST"
    assert error_of(client.options("/translate"), 405)
    described = client.get("/openapi.json").json()
    assert described["paths"].keys() >= {"/translate", "/score", "/attention", "/health", "/"}


def test_every_answer_has_headers_that_keep_browsers_out(client):
    for answer in (client.get("/health"), client.get("/nothing"), client.get("/translate")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers


def test_only_names_of_this_machine_reach_it(client, started):
    port = started.address[1]
    for host in (
        "localhost",
        f"127.0.0.1:{port}",
        f"LOCALHOST:{port}",
        "[::1]:80",
        "proxy.example",
    ):
        assert client.get("/health", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost@evil", "[::2]"):
        refused = client.get("/health", headers={"Host": host})
        assert error_of(refused, 400).startswith("Host is") and "--allowed-hosts" in refused.text


def test_bodies_that_are_no_json_are_refused(client):
    plain = client.post("/translate", content='{"lines": ["a"]}')
    assert error_of(plain, 415).startswith("Content-Type is '', but must be application/json")
    kind = {"Content-Type": "application/json; charset=utf-8"}
    packed = client.post("/translate", content=b"{}", headers=kind | {"Content-Encoding": "gzip"})
    assert "bodies are not unpacked" in error_of(packed, 415)
    assert error_of(client.post("/translate", content=b"nope", headers=kind), 400)
    good = json.dumps({"lines": LINES}).encode()
    assert client.post("/translate", content=good, headers=kind).status_code == 200
    parts = client.post("/translate", content=iter([good[:9], good[9:]]), headers=kind)
    assert parts.status_code == 200


def test_large_bodies_are_refused(client, started):
    kind = {"Content-Type": "application/json"}
    large = client.post("/translate", content=b" " * 20_001, headers=kind)
    assert "more than 20,000 bytes: divide it" in error_of(large, 413)
    endless = client.post("/translate", content=iter([b" " * 1000] * 300), headers=kind)
    assert error_of(endless, 413)
    head = b"POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b" 411 " in send(started, head + b"\r\n")
    assert b" 400 " in send(started, head + b"Content-Length: nine\r\n\r\n{}")


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([b"GET /health HTT"], 408),  # a head that does not go on
        ([b"POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
          b"Content-Length: 999\r\n\r\n", *[b" "] * 600], 408),
        ([b"HELO there\r\n\r\n"], 400),
        ([b"GET /health HTTP/1.1\r\nHost: localhost\r\n", *[b"X: y\r\n"] * 600], 408),
        ([b""] * 15, 408),  # nothing at all
    ],
)  # fmt: skip
def test_slow_clients_are_ended(impatient, parts, status):
    with socket.create_connection(impatient.address, timeout=30) as connection:
        threading.Thread(target=dribble, args=(connection, parts), daemon=True).start()
        received = read_all(connection)
    assert f" {status} ".encode() in received.split(b"\r\n")[0]
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]


def test_connections_are_limited(started):
    connections = [socket.create_connection(started.address) for _ in range(LIMITS.connections)]
    time.sleep(0.2)
    assert b" 503 " in send(started, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for connection in connections:
        connection.close()
    time.sleep(0.2)
    with httpx.Client(base_url=started.url, trust_env=False) as client:
        assert client.get("/health").status_code == 200


def test_a_full_queue_is_told_when_to_come_back(started):
    def ask(number):
        with httpx.Client(base_url=started.url, timeout=60, trust_env=False) as client:
            return client.post("/translate", json={"lines": [f"line {number}"] * 40})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 20
    for answer in refused:
        assert "lines wait, and at most 200 may" in error_of(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1


def test_clients_that_leave_are_forgotten(started, client):
    body = json.dumps({"lines": ["the cat sees a dog"] * 40}).encode()
    head = "POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    gone = started.service.metrics.requests["/translate", 499]
    for _ in range(4):
        with socket.create_connection(started.address) as connection:
            connection.sendall(request)
    assert len(translate(client, ["the cat"])) == 1
    until(lambda: started.service.metrics.requests["/translate", 499] > gone)


def test_what_was_done_is_counted(client, started):
    before = started.service.metrics.sentences
    translate(client, LINES)
    text = client.get("/metrics").text
    assert re.search(r"^flax_transformer_warm 1$", text, re.MULTILINE)
    assert f"flax_transformer_sentences_total {before + len(LINES)}\n" in text
    assert "\nflax_transformer_waiting_lines 0\n" in text
    # This one; those whose clients have left may still be there.
    until(lambda: "\nflax_transformer_requests_in_progress 1\n" in client.get("/metrics").text)


def test_a_server_listens_while_it_warms_up_and_answers_what_it_has_taken_in(started):
    hold, loaded = threading.Event(), threading.Event()

    class Holding(Watcher):
        def loaded(self, model, programs):
            loaded.set()
            assert hold.wait(30)

    model = started.service.model
    service = Service(lambda: model, LIMITS, [2], most_lines=8, watcher=Holding())
    second = Started(service)
    with httpx.Client(base_url=second.url, timeout=60, trust_env=False) as client:
        assert client.get("/health").status_code == 503
        assert loaded.wait(30)
        early = client.get("/health")
        assert early.json()["status"] == "warming up" and early.headers["retry-after"]
        refused = client.post("/translate", json={"lines": ["a"]})
        assert "the model is not ready yet, 0 of " in error_of(refused, 503)
        assert error_of(client.post("/translate", json={"lines": 1}), 422)
        hold.set()
        second.wait_until_warm()
        assert client.get("/health").status_code == 200
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(translate, client, ["the cat sees"] * 40)
            until(lambda: service.batcher.waiting_lines)
            second.stop()
            assert asked.result() == model.translate(["the cat sees"] * 40)
    with pytest.raises(OSError):
        socket.create_connection(second.address).close()


def test_a_model_that_cannot_be_loaded_ends_the_server():
    def load():
        raise UserError("there is no checkpoint")

    started = Started(Service(load, LIMITS, [2]))
    started.thread.join(20)
    assert isinstance(started.error, UserError) and "no checkpoint" in str(started.error)


def test_defects_are_answered_and_told(client, started, monkeypatch, capfd):
    def broken(*_):
        raise RuntimeError("this was not expected")

    monkeypatch.setattr(started.service.batcher, "translate", broken)
    answer = client.post("/translate", json={"lines": ["a"]})
    assert error_of(answer, 500).startswith("this is a defect of the server")
    monkeypatch.undo()
    assert "this was not expected" in capfd.readouterr().err
    assert client.post("/translate", json={"lines": ["a"]}).status_code == 200


def test_malformed_requests_are_refused_and_survived(impatient, monkeypatch, capfd):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.serve import malformed

    drawn = malformed.requests(seed=1, pause=0.01)
    asked = [next(drawn) for _ in range(144)]
    assert len({request.kind for request in asked}) == 10
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda each: malformed.send(impatient.address, each, 60), asked))
    verdicts = [malformed.judge(answer) for answer in answers]
    for request, verdict in zip(asked, verdicts, strict=True):
        assert malformed.FAULT not in verdict, (verdict, request.kind, request.parts[0][:300])
    assert {"400", "404", "405", "413", "422"} <= set(verdicts)
    assert capfd.readouterr().err == ""
    answer = httpx.post(f"{impatient.url}/translate", json={"lines": LINES}, trust_env=False)
    assert len(translations_of(answer)) == len(LINES)


def test_sigterm_lets_requests_be_answered(workdir, started):
    """As a command, with requests in flight."""
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # of what ran in this process before
    words = f"""serve --workdir {workdir} --port 0 --batch-lines 1 --limits.inspected-tokens 12"""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words.split()],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = re.fullmatch(r"listening on (\S+); loading the model\n", process.stdout.readline())[1]
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        until(lambda: client.get("/health").status_code == 200, 300)

        def ask(number):
            lines = [f"{number} the cat sees"] * 100
            answer = httpx.post(
                f"{url}/translate", json={"lines": lines}, trust_env=False, timeout=60
            )
            return len(translations_of(answer))

        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, number) for number in range(8)]
            # It takes in nothing that comes later. One of them is for /metrics itself.
            until(lambda: "requests_in_progress 9\n" in client.get("/metrics").text)
            process.send_signal(signal.SIGTERM)
            assert [each.result() for each in asked] == [100] * 8
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + signal.SIGTERM, "")
    assert f"curl {url}/translate" in output
    assert re.search(r"stopped; \d+ requests: \d+ x 200", output)
    assert "800 lines of" in output
