"""Requests are what the schemas of /openapi.json say, or are told what is wrong with them."""

import json

import pytest

from flax_transformer.serving.bodies import parse_json
from flax_transformer.serving.limits import Limits
from flax_transformer.serving.refusals import RefusedError
from flax_transformer.serving.schemas import openapi, operations
from flax_transformer.serving.validation import _ANNOTATIONS, _CHECKS, _TYPES, validate

LIMITS = Limits(lines=3, line_characters=10)
OPERATIONS = operations(LIMITS, [4, 1])
TRANSLATE = OPERATIONS["/translate"].request


@pytest.mark.parametrize(
    "values",
    [
        {"lines": ["a"]},
        {"lines": ["", "0123456789", "😀" * 10]},
        {"lines": ["a\rb\u2028c\x00"], "n_best": 4, "beam_size": 1, "prefixes": []},
    ],
)
def test_what_the_schema_allows_is_taken(values):
    """And only that: one more name is refused, so that all of it was looked at."""
    assert validate(values, TRANSLATE) is None
    with pytest.raises(RefusedError, match="the request has 'more', which is unknown"):
        validate(values | {"more": 1}, TRANSLATE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "the request is [], but must be an object"),
        (None, "the request is None, but must be an object"),
        ({}, "the request has no 'lines': give it; there is lines, n_best, beam_size, prefixes"),
        ({"lines": "a"}, "lines is 'a', but must be a list"),
        ({"lines": []}, "lines has 0 elements, but must have at least 1"),
        ({"lines": ["a"] * 4}, "lines has 4 elements, but at most 3 are taken: send the others"),
        ({"lines": ["a", 7]}, "lines[1] is 7, but must be a text"),
        ({"lines": ["a", ["b"]]}, "lines[1] is ['b'], but must be a text"),
        ({"lines": ["a" * 11]}, "lines[0] has 11 characters, but at most 10 are taken: divide it"),
        ({"lines": ["a\n"]}, "lines[0] is not what it must be: one line of text, without a line"),
        ({"lines": ["\ud800"]}, "lines[0] holds half of a surrogate pair, '\\ud800'"),
        ({"lines": ["a"], "n_best": 0}, "n_best is 0, but must be at least 1"),
        ({"lines": ["a"], "n_best": 5}, "n_best is 5, but must be at most 4"),
        ({"lines": ["a"], "n_best": 1.0}, "n_best is 1.0, but must be a whole number"),
        ({"lines": ["a"], "n_best": True}, "n_best is True, but must be a whole number"),
        ({"lines": ["a"], "n_best": None}, "n_best is None, but must be a whole number"),
        ({"lines": ["a"], "beam_size": 2}, "beam_size is 2, but must be one of 4, 1: those that"),
        ({"lines": ["a"], "n_bset": 1}, "the request has 'n_bset', which is unknown: there is"),
        ({"lines": ["a"], "\ud800" * 99: 1}, "the request has '\\ud800"),
        ({"lines": ["a"], "prefixes": {"a": "b"}}, "prefixes is {'a': 'b'}, but must be a list"),
    ],
)
def test_what_it_does_not_allow_is_refused_by_name(values, message):
    with pytest.raises(RefusedError) as caught:
        validate(values, TRANSLATE)
    assert caught.value.status == 422
    assert caught.value.message.startswith(message)
    assert len(caught.value.message) < 250
    json.dumps({"error": caught.value.message}, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is no JSON: Expecting value"),
        (b"{", "the body is no JSON: Expecting property name"),
        (b'{"lines": ["a"]} {}', "the body is no JSON: Extra data"),
        (b'{"lines": ["a\xff"]}', "the body is not UTF-8 from byte 13 on"),
        (b'{"n_best": NaN}', "the body is no JSON: NaN is no number of JSON"),
        (b'{"n_best": -Infinity}', "the body is no JSON: -Infinity is no number"),
        (b'{"n_best": ' + b"9" * 5000 + b"}", "the body is no JSON: Exceeds the limit"),
        (b'{"lines": 1, "lines": 2}', "the body is no JSON: an object has a name twice"),
        (b"[" * 200_000, "the body has too many lists or objects in each other"),
        (b'{"a":' * 100_000, "the body has too many lists or objects in each other"),
    ],
)
def test_what_is_no_json_is_refused(body, message):
    with pytest.raises(RefusedError) as caught:
        parse_json(body)
    assert caught.value.status == 400 and caught.value.message.startswith(message)


def test_every_keyword_of_the_schemas_is_checked():
    """A keyword that nobody checks would promise what does not hold."""

    def walk(schema):
        assert schema["type"] in _TYPES
        assert schema.keys() <= {"type"} | _ANNOTATIONS | _CHECKS.keys()
        for inner in (*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])):
            walk(inner)

    for operation in OPERATIONS.values():
        if operation.request is not None:
            walk(operation.request)
            assert operation.request["additionalProperties"] is False


def test_the_description_holds_the_schemas_that_are_checked():
    described = openapi(OPERATIONS, "1.2.3")
    assert described["openapi"] == "3.1.0" and described["info"]["version"] == "1.2.3"
    body = described["paths"]["/translate"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"] is TRANSLATE
    assert described["paths"].keys() == OPERATIONS.keys()
    json.dumps(described)
