"""The identity of a recipe: all values that could change a result. It decides whether two recipes belong to the same run."""

from collections.abc import Iterator
from datetime import date
from typing import Any

from pydantic import BaseModel


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
