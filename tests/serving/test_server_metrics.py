"""Counts in the text format of Prometheus."""

import re

from flax_transformer.serving.metrics import Metrics
from flax_transformer.serving.report import summary


def test_counts_are_given_in_the_format_of_prometheus():
    metrics = Metrics(["/translate", "/health"])
    metrics.count_request("/translate", 200, 0.01)  # at most 0.01
    metrics.count_request("/translate", 200, 0.2)
    metrics.count_request("/translate", 429, 99)
    metrics.count_request('/no"such\n', 404, 0.001)
    metrics.count_batch(3, 30)
    metrics.count_batch(1000, 10)
    text = metrics.text(waiting=7, warm=True)
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    name = "flax_transformer_{}".format
    assert found[name('requests_total{path="/translate",status="200"}')] == "2"
    assert found[name('requests_total{path="/translate",status="429"}')] == "1"
    assert found[name('requests_total{path="other",status="404"}')] == "1"
    assert found[name("sentences_total")] == "1003" and found[name("tokens_total")] == "40"
    assert found[name("waiting_lines")] == "7" and found[name("warm")] == "1"
    bucket = name('request_seconds_bucket{{path="/translate",le="{}"}}').format
    assert [found[bucket(bound)] for bound in ("0.005", "0.01", "0.25", "30.0", "+Inf")] == list(
        "01223"
    )
    assert found[name('request_seconds_sum{path="/translate"}')] == "99.210000"
    assert found[name('batch_sentences_bucket{le="+Inf"}')] == "2"
    assert found[name("batch_sentences_count")] == "2"
    # Every series has a type, and every line is one that Prometheus reads.
    typed = set(re.findall(r"^# TYPE (\w+) \w+$", text, re.MULTILINE))
    for line in found:
        assert re.fullmatch(r'\w+(\{(\w+="[^"\\\n]*",?)+\})?', line)
        assert (
            re.sub(r"_(bucket|sum|count)?(\{.*)?$", "", line) in typed
            or line in typed
            or (line.partition("{")[0] in typed)
        )


def test_the_summary_says_what_was_done():
    metrics = Metrics(["/translate"])
    assert summary(metrics) == ["stopped; 0 requests"]
    for _ in range(19):
        metrics.count_request("/translate", 200, 0.02)
    metrics.count_request("/translate", 422, 3.0)
    metrics.count_batch(30, 300)
    assert summary(metrics) == [
        "stopped; 20 requests: 19 x 200, 1 x 422",
        "30 lines of 300 tokens translated in 1 batches of 30.0",
        "/translate: half within 0.025 s, 95% within 0.025 s",
    ]
