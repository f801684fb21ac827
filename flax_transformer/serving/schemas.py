"""What requests and answers look like, as JSON schemas: requests are checked against them, and
/openapi.json shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flax_transformer.serving.limits import Limits
from flax_transformer.serving.validation import Schema

_NOTE = {"description": "How many lines are left empty, and why.", "type": "string"}
_PIECES = {"type": "array", "items": {"type": "string"}}
_WEIGHTS = {
    "description": "Weights by layer, head, row and column; null where the model has none.",
    "type": ["array", "null"],
    "items": {"type": "array", "items": {"type": "array", "items": {"type": "array"}}},
}


@dataclass(frozen=True)
class Operation:
    """What can be asked for at one path.

    request: schema of the body; None where there is none
    answer:  schema of the answer's JSON; None where it is other text, of `media_type`
    """

    method: str
    summary: str
    request: Schema | None = None
    answer: Schema | None = None
    media_type: str = "application/json"


def operations(limits: Limits, beam_sizes: Sequence[int]) -> dict[str, Operation]:
    """Returns what the server can do, by path.

    beam_sizes: those that the server has compiled, that of the run first
    """
    return {
        "/translate": Operation(
            "POST", "Translates lines.", _translate(limits, beam_sizes), _translations()
        ),
        "/score": Operation(
            "POST",
            "Translates lines and compares the translations with references.",
            _object({"sources": _lines(limits), "references": _lines(limits)}, 2),
            _scores(),
        ),
        "/attention": Operation(
            "POST",
            "Shows where the model looks while it reads a sentence and writes a translation.",
            _object({"source": _line(limits), "target": _line(limits)}, 1),
            _attention(),
        ),
        "/explore": Operation(
            "POST",
            "Describes how a sentence is translated, for the page at /.",
            _object(
                {
                    "source": _line(limits),
                    "prefix": _line(limits) | {"default": ""},
                    "beam_size": _beam_size(beam_sizes),
                },
                1,
            ),
            {"type": "object"},
        ),
        "/health": Operation(
            "GET",
            "Says whether translations can be asked for: 200 once they can, 503 before.",
            answer=_object({"status": {"type": "string"}, "programs": {}, "compiled": {}}, 3),
        ),
        "/metrics": Operation("GET", "Counts and durations, for Prometheus.", None, None, _METRICS),
        "/openapi.json": Operation("GET", "This description.", answer={"type": "object"}),
        "/": Operation("GET", "A page to see inside the model.", None, None, "text/html"),
    }


_METRICS = "text/plain; version=0.0.4"


def openapi(operations: dict[str, Operation], version: str) -> dict[str, Any]:
    """Returns the description of the interface in OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "flax_transformer",
            "version": version,
            "description": "Translation by a trained model. Whatever is refused is answered with "
            'a status of 400 or above and {"error": what is wrong, and what to do}.',
        },
        "paths": {
            path: {each.method.lower(): _described(each)} for path, each in operations.items()
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content["schema"] = operation.answer
    error = _object({"error": {"type": "string"}}, 1)
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {
            "200": {"description": "Done.", "content": {operation.media_type: content}},
            "default": {
                "description": "Refused.",
                "content": {"application/json": {"schema": error}},
            },
        },
    }
    if operation.request is not None:
        body = {"application/json": {"schema": operation.request}}
        described["requestBody"] = {"required": True, "content": body}
    return described


def _translate(limits: Limits, beam_sizes: Sequence[int]) -> Schema:
    properties = {
        "lines": _lines(limits),
        "n_best": {
            "description": "Most translations of a line; at most beam_size.",
            "type": "integer",
            "minimum": 1,
            "maximum": max(beam_sizes),
            "default": 1,
        },
        "beam_size": _beam_size(beam_sizes),
        "prefixes": {
            "description": "For each line the text that its translation begins with; may be empty.",
            "type": "array",
            "items": _line(limits),
            "maxItems": limits.lines,
        },
    }
    return _object(properties, 1) | {"examples": [{"lines": ["The cat sleeps."]}]}


def _lines(limits: Limits) -> Schema:
    return {"type": "array", "items": _line(limits), "minItems": 1, "maxItems": limits.lines}


def _line(limits: Limits) -> Schema:
    return {
        "description": "one line of text, without a line feed: give each line by itself",
        "type": "string",
        "maxLength": limits.line_characters,
        "not": {"pattern": "\n"},
    }


def _beam_size(beam_sizes: Sequence[int]) -> Schema:
    return {
        "title": "those that the server was started with (--beam-sizes)",
        "description": "Hypotheses kept at each position.",
        "type": "integer",
        "enum": list(beam_sizes),
        "default": beam_sizes[0],
    }


def _object(properties: dict[str, Any], required: int) -> Schema:
    """Returns the schema of an object of which the first properties are `required`."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties)[:required],
        "additionalProperties": False,
    }


def _translations() -> Schema:
    score = {
        "description": "Log probability over the length penalty, plus the coverage penalty; null "
        "where it is not finite.",
        "type": ["number", "null"],
    }
    hypotheses = {
        "type": "array",
        "items": _object({"text": {"type": "string"}, "score": score}, 2),
    }
    translation = {
        "description": "The translation of a line; where n_best is above 1, a list of them, best "
        "first.",
        "oneOf": [{"type": "string"}, hypotheses],
    }
    return _object({"translations": {"type": "array", "items": translation}, "note": _NOTE}, 1)


def _scores() -> Schema:
    number, text = {"type": "number"}, {"type": "string"}
    properties = {
        "bleu": number,
        "bleu_signature": text,
        "chrf": number,
        "chrf_signature": text,
        "translations": {"type": "array", "items": text},
    }
    return _object(properties | {"note": _NOTE}, len(properties))


def _attention() -> Schema:
    pieces = {name: _PIECES for name in ("source", "target", "inputs")}
    weights = {name: _WEIGHTS for name in ("encoder", "decoder", "cross")}
    return _object(pieces | weights, 6)
