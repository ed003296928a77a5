"""What the service takes and answers, as OpenAPI describes it: made of the columns of real answers.

``GET /openapi.json`` has it, so that a client can be generated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.commands.serve.bodies import Limits

_ABOUT = {
    "item": "Name of the item in the request, or its position there.",
    "class": "The most probable class.",
    "probability": "Probability of that class, calibrated on training items.",
    "prediction": "The prediction; several labels are separated by |.",
    "set": "Classes that are plausible at the coverage, separated by |.",
    "sure": "Labels that are present at the coverage, separated by |.",
    "undecided": "Labels that may or may not be present, separated by |.",
    "abstain": "Whether there is no single answer at the coverage.",
    "low": "Lower end of the interval at the coverage.",
    "high": "Upper end of the interval at the coverage.",
    "ood": "Whether the item is unlike anything the run was trained on.",
    "ood_p": "Share of training items that are at least as far out.",
    "ood_score": "How far out the item is; larger is farther.",
}
_TYPES: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
_TEXT = {"type": "string"}
_FAULT = {
    "type": "object",
    "properties": {"expected": _TEXT, "found": _TEXT, "do": _TEXT},
    "required": ["expected", "found", "do"],
}
_REFUSED = {"type": "object", "properties": {"error": _FAULT}, "required": ["error"]}
_STATUSES = {
    400: "Neither JSON nor a form, or wrong field names.",
    408: "The body did not arrive in time.",
    413: "More items, bytes or pixels than allowed.",
    415: "Unsupported Content-Type, or a compressed body.",
    421: "A request to a host name that is not this machine's.",
    503: "The queue is full: Retry-After says when to try again.",
}


def predict_operation(limits: Limits, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the bodies of ``POST /predict`` and its answers.

    Args:
        limits: of a request.
        columns: of an answer, by name one value each.
    """
    predictions = {
        "type": "object",
        "properties": {
            "predictions": {
                "type": "array",
                "items": {"oneOf": [row_schema(columns), _bad_item()]},
            }
        },
        "required": ["predictions"],
    }
    answers = {
        "200": _json("One row per item, in the order of the request.", predictions),
        "422": _json("No item could be predicted, or there were none.", {"oneOf": [
            predictions, _REFUSED
        ]}),
        **{str(status): _json(text, _REFUSED) for status, text in _STATUSES.items()},
    }  # fmt: skip
    return {"requestBody": {"required": True, "content": _bodies(limits)}, "responses": answers}


def row_schema(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of what is said of one item."""
    properties = {}
    for name, value in columns.items():
        said: dict[str, Any] = {"type": _TYPES.get(type(value), "string")}
        told = _ABOUT.get(name)
        properties[name] = said if told is None else {**said, "description": told}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _bad_item() -> dict[str, Any]:
    properties = {"item": _TEXT, "error": _FAULT}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _bodies(limits: Limits) -> dict[str, Any]:
    coded = _TEXT if limits.kind == "text" else {"type": "string", "contentEncoding": "base64"}
    named = {
        "type": "object",
        "properties": {"name": _TEXT, "data": coded},
        "required": ["data"],
    }
    values = {"type": "array", "maxItems": limits.items, "items": {"oneOf": [coded, named]}}
    binary = {"type": "string", "format": "binary"}
    files = {"type": "array", "maxItems": limits.items, "items": binary}
    bodies: dict[str, Any] = {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {limits.unit: values},
                "required": [limits.unit],
            }
        },
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {limits.unit: files}},
        },
    }
    for kind in limits.raw:
        bodies[f"{kind}*" if kind.endswith("/") else kind] = {"schema": binary}
    return bodies


def _json(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


__all__ = ["predict_operation", "row_schema"]
