"""Documents the keys of settings files: a Markdown reference and a JSON schema, generated from the models that validate a file."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from sparta.recipes.schema import Recipe

Schema = Mapping[str, Any]
"""A JSON schema, or a part of one, as pydantic writes it."""

FREE = "°"
"""Marks keys that may change between two launches of a run."""
_REF = "#/$defs/"
_ANY_JSON = "JsonValue"
"""The definition of an arbitrary value, which is not a section."""
_BOUNDS = (
    ("minimum", "≥ {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "≤ {}"),
    ("exclusiveMaximum", "< {}"),
    ("minItems", "at least {} of them"),
)
_TYPES = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
}


def recipe_file_schema() -> dict[str, Any]:
    """The JSON schema of a recipe file: the keys of a recipe, and `extends`, which makes all of them optional."""
    schema = Recipe.model_json_schema()
    extends = {
        "type": "string",
        "description": "another recipe (a name or a file) whose values this one overrides",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "properties": {"extends": extends, **schema["properties"]},
        "required": [],
        "anyOf": [{"required": ["extends"]}, {"required": schema["required"]}],
    }


def reference(schema: Schema, heading: str, top: str) -> str:
    """Markdown tables of all keys in `schema`, one table per section.

    heading: the prefix of section headings, such as "###". top: the heading of the table of top-level keys.
    """
    places = _places(schema)
    parts = [_section(f"{heading} {top}", schema, places)]
    parts += [
        _section(f"{heading} {_title(found)}", schema["$defs"][name], places)
        for name, found in places.items()
    ]
    return "\n".join(parts)


def _places(schema: Schema) -> dict[str, list[str]]:
    """The places of each section, by the name of its definition, in the order of a file: {"Sft": ["pool.sft"]}."""
    places: dict[str, list[str]] = {}

    def visit(section: Schema, prefix: str) -> None:
        for key, field in section["properties"].items():
            if inner := _inner(field):
                name, step = inner
                places.setdefault(name, []).append(f"{prefix}{key}{step}")
                visit(schema["$defs"][name], f"{prefix}{key}{step}.")

    visit(schema, "")
    return places


def _inner(field: Schema) -> tuple[str, str] | None:
    """The definition of the section under a key, and the path to it: [] through a list, .NAME through a mapping."""
    if "$ref" in field:
        name = str(field["$ref"]).removeprefix(_REF)
        return None if name == _ANY_JSON else (name, "")
    steps = [("", alternative) for alternative in field.get("anyOf", ())]
    steps += [
        (step, field[key])
        for key, step in (("items", "[]"), ("additionalProperties", ".NAME"))
        if isinstance(field.get(key), Mapping)
    ]
    found = [(inner[0], step + inner[1]) for step, part in steps if (inner := _inner(part))]
    return found[0] if found else None


def _section(heading: str, section: Schema, places: Mapping[str, list[str]]) -> str:
    lines = [
        heading,
        "",
        *_about(section),
        "| key | type | bounds | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for key, field in section["properties"].items():
        free = FREE if field.get("identity") is False else ""
        default = _yaml(field["default"]) if "default" in field else "required"
        kind, bounds, meaning = _type(field), ", ".join(_bounds(field)), field.get("description", "")
        if inner := _inner(field):
            title = _title(places[inner[0]])
            link = f"see [{title}](#{_anchor(title)})"
            kind = {"": "section", "[]": "list of sections", ".NAME": "mapping of names to sections"}[
                inner[1]
            ]
            words = [_type(alternative) for alternative in field.get("anyOf", ()) if "enum" in alternative]
            kind, bounds = " or ".join([*words, kind]), ""
            meaning = f"{meaning}; {link}" if meaning else link
            default = default if words or default in ("required", "null") or inner[1] else ""
        lines.append(
            _row(
                f"`{key}`{free}",
                kind,
                bounds,
                f"`{default}`" if default not in ("", "required") else default,
                meaning,
            )
        )
    return "\n".join([*lines, ""])


def _about(section: Schema) -> Iterator[str]:
    if text := section.get("description"):
        yield re.sub(r"[ ]*\n[ ]*(?!\n)", "\n", str(text))
        yield ""


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _title(places: list[str]) -> str:
    return ", ".join(places)


def _anchor(title: str) -> str:
    """The URL fragment of a heading on GitHub."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _type(field: Schema) -> str:
    if "anyOf" in field:
        return " or ".join(_type(alternative) for alternative in field["anyOf"])
    if "const" in field:
        return f"`{_yaml(field['const'])}`"
    if "enum" in field:
        return " or ".join(f"`{_yaml(value)}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "object":
        return f"mapping of names to {_type(field['additionalProperties']) or 'any value'}"
    return _TYPES.get(field.get("type", ""), "")


def _bounds(field: Schema) -> Iterator[str]:
    """The bounds of a key's number or numbers."""
    for key, words in _BOUNDS:
        if key in field:
            yield words.format(f"{field[key]:g}")
    for alternative in field.get("anyOf", ()):
        yield from _bounds(alternative)
    for part in ("items", "additionalProperties"):
        if isinstance(field.get(part), Mapping):
            yield from _bounds(field[part])


def _yaml(value: Any) -> str:
    """`value` in YAML, on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
