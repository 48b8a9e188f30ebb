"""Checks a value against a JSON Schema, for the keywords that pgolf's own schema uses. Others raise AssertionError."""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
NOTES = {"$schema", "title"}


@cache
def submission_schema() -> dict[str, Any]:
    """The JSON Schema of submission.json, shipped inside the package."""
    return json.loads(files("pgolf.results").joinpath("submission.schema.json").read_text(encoding="utf-8"))


def violations(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """Every way in which `value` is not what `schema` asks, each with its place: violations("3", {"type": "integer"})
    == ["the value: is '3', must be integer"]."""
    return [f"{place or 'the value'}: {what}" for place, what in _check(value, schema, where)]


def _check(value: Any, schema: dict, where: str) -> Iterator[tuple[str, str]]:
    if "type" in schema and not _has_type(value, schema["type"]):
        yield where, f"is {value!r}, must be {' or '.join(_listed(schema['type']))}"
        return
    for keyword, wanted in schema.items():
        if keyword in NOTES or keyword in ("type", "properties"):
            continue
        assert keyword in RULES or keyword in INSIDE, f"schema keyword {keyword} is not supported"
        if keyword in RULES and not RULES[keyword](value, wanted):
            yield where, f"is {value!r}, must have {keyword} {wanted}"
    yield from _inside(value, schema, where)


def _inside(value: Any, schema: dict, where: str) -> Iterator[tuple[str, str]]:
    """The members of an object and the items of an array."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from _check(item, schema.get("items", {}), f"{where}[{i}]")
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for key in schema.get("required", []):
            if key not in value:
                yield where, f"{key} is missing"
        for key, item in value.items():
            place = f"{where}.{key}".lstrip(".")
            if key not in known and others is False:
                yield place, "is not a known field"
            else:
                yield from _check(item, known.get(key, others or {}), place)


def _listed(types: str | list[str]) -> list[str]:
    return [types] if isinstance(types, str) else types


def _has_type(value: Any, types: str | list[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in _listed(types)
    return any(isinstance(value, TYPES[t]) for t in _listed(types))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


INSIDE = ("items", "required", "additionalProperties")
RULES: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda v, w: not _number(v) or v >= w,
    "exclusiveMinimum": lambda v, w: not _number(v) or v > w,
    "minLength": lambda v, w: not isinstance(v, str) or len(v) >= w,
    "pattern": lambda v, w: not isinstance(v, str) or re.search(w, v) is not None,
    "minItems": lambda v, w: not isinstance(v, list) or len(v) >= w,
    "uniqueItems": lambda v, w: not isinstance(v, list) or len({json.dumps(i) for i in v}) == len(v),
    "minProperties": lambda v, w: not isinstance(v, dict) or len(v) >= w,
}
