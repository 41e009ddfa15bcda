"""The identity of a recipe: all values that could change a result. It decides whether two recipes belong to the same run."""

from collections.abc import Iterator
from datetime import date
from typing import Any

from pydantic import BaseModel

from sparta.arena.rules import overlay


def identity_of(section: BaseModel, defaults: bool = True) -> dict[str, Any]:
    """The values of `section` that could change a result, as plain values.

    defaults: include values that equal the default (for fields marked `earlier`: the value in earlier versions).
    """
    values: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("identity") is False:
            continue
        value = getattr(section, name)
        plain = _plain(value, defaults)
        was = extra.get("earlier", field.default) if isinstance(extra, dict) else field.default
        usual = not plain if isinstance(value, BaseModel) else value == was
        if defaults or not usual:
            values[name] = plain
    return values


def identities_of_earlier_versions(section: BaseModel) -> list[dict[str, Any]]:
    """`identity_of` without defaults, as this version and as earlier ones would give it: their identity had fields marked `how_by_now` too."""
    found = [identity_of(section, defaults=False)]
    for path, value in _how_by_now(type(section)):
        found += [overlay(identity, _nested(path, value)) for identity in found]
    return found


def _how_by_now(
    section: type[BaseModel], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, field in section.model_fields.items():
        extra, kind = field.json_schema_extra, field.annotation
        if isinstance(extra, dict) and "identity_with" in extra:
            yield (*path, name), extra["identity_with"]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _how_by_now(kind, (*path, name))


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for the path a, b."""
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def _plain(value: Any, defaults: bool) -> Any:
    if isinstance(value, BaseModel):
        return identity_of(value, defaults)
    if isinstance(value, tuple):
        return [_plain(item, defaults) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of `tree`, each with its dotted key: ("match.k", 5)."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        for index, value in enumerate(tree):
            yield from flat(value, f"{prefix}.{index}")
    else:
        yield prefix, tree
