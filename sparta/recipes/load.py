"""Loads recipes from YAML files and `--set`, and reports everything that is wrong with them in one sentence.

A file holds only what differs from the defaults; `extends:` names another recipe to start from. Other settings files are read and checked
with the same two functions, `read_mapping` and `validated`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from sparta.arena.rules import overlay
from sparta.errors import SpartaError
from sparta.names import RECIPES, STUDIES, hint, quoted
from sparta.recipes.pool import HUB, is_sft_file
from sparta.recipes.schema import Recipe

Settings = TypeVar("Settings", bound=BaseModel)


def load(source: str | Path, settings: Sequence[str] = (), begun: Recipe | None = None) -> Recipe:
    """The recipe `source` (a name under sparta/recipes, or a YAML file) with `settings` ("a.b=c", YAML values) applied.

    begun: the recipe of the run to continue, if any. Its values of fields marked `earlier` are kept unless this recipe sets them.
    Raises SpartaError naming the file and the key.
    """
    path = find(source)
    tree = _read_tree(path)
    for setting in settings:
        tree = overlay(tree, _setting(setting))
    if begun is not None:
        tree = overlay(_still_earlier(begun), tree)
    return validated(Recipe, tree, f"recipe {path}").placed()


def assembled(source: str | Path, changes: Sequence[Mapping[str, Any]], beside: Path, what: str) -> Recipe:
    """The recipe `source` with `changes`, each a mapping of dotted keys to values, applied in order.

    beside: the file that names the recipe and makes the changes; relative paths start at its folder. A name under sparta/recipes is that recipe,
    whatever lies beside the file. what: the result, for messages. Raises SpartaError naming the key.
    """
    tree = _read_tree(RECIPES / f"{source}.yaml" if source in built_in() else find(source, beside))
    for change in changes:
        for key, value in change.items():
            tree = overlay(tree, _located(_nested(key, value), beside.parent))
    return validated(Recipe, tree, what).placed()


def adjust(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """`recipe` with `settings` ("a.b=c") applied.

    Raises SpartaError also if they change the preset: a complete recipe sets every value, so a preset would have no effect.
    """
    tree = recipe.model_dump(mode="json")
    if recipe.reweighting.enabled != recipe.reputation.frozen:
        # The value is the default, so it follows reputation.frozen again.
        del tree["reweighting"]["enabled"]
    for setting in settings:
        tree = overlay(tree, _setting(setting))
    adjusted = validated(Recipe, tree, f"recipe {recipe.name}").placed()
    if adjusted.reputation.preset != recipe.reputation.preset:
        raise SpartaError(
            f"recipe {recipe.name}: reputation.preset={adjusted.reputation.preset} only sets keys that a recipe leaves out, but the recipe of a "
            "run has every key: name the recipe file again with --recipe, together with this --set"
        )
    return adjusted


def thaw(path: Path) -> Recipe:
    """The recipe stored at `path`, possibly by an earlier version.

    Earlier versions had a single `evaluation.task`, and lacked some keys; these get the value that such runs used (see
    `sparta.arena.rules.earlier`).
    """
    tree = read_mapping(path, "recipe")
    if isinstance(evaluation := tree.get("evaluation"), dict) and "task" in evaluation:
        rest = {key: value for key, value in evaluation.items() if key != "task"}
        named = evaluation["task"]
        tree["evaluation"] = rest if named is None else {"tasks": [named], **rest}
    return validated(Recipe, overlay(_earlier(Recipe), tree), f"recipe {path}")


def _earlier(section: type[BaseModel]) -> dict[str, Any]:
    """The values of earlier versions for the fields of `section` that are marked `earlier`."""
    values: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        extra, kind = field.json_schema_extra, field.annotation
        if isinstance(extra, dict) and "earlier" in extra:
            values[name] = extra["earlier"]
        elif isinstance(kind, type) and issubclass(kind, BaseModel) and (inner := _earlier(kind)):
            values[name] = inner
    return values


def _still_earlier(recipe: Recipe) -> dict[str, Any]:
    """The fields marked `earlier` in which `recipe` has the value of earlier versions."""

    def same(marked: dict[str, Any], section: BaseModel) -> dict[str, Any]:
        return {
            name: same(value, getattr(section, name)) if isinstance(value, dict) else value
            for name, value in marked.items()
            if isinstance(value, dict) or getattr(section, name) == value
        }

    return same(_earlier(Recipe), recipe)


def find(source: str | Path, beside: Path | None = None) -> Path:
    """The file of a recipe: a path that exists, or a name under sparta/recipes (toy, paper/alpaca).

    beside: the recipe that names it; a relative path starts at its folder. None: at the working directory.
    """
    own = [Path(source)] if beside is None else [beside.parent / source, beside.parent / f"{source}.yaml"]
    candidates = [*own, RECIPES / f"{source}.yaml"]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    raise SpartaError(
        f"there is no recipe {source}: neither a file nor a name under sparta/recipes; {hint(str(source), built_in(), 'recipes')}"
    )


def built_in() -> list[str]:
    """The names of the recipes under sparta/recipes, sorted. Files that begin with _ are shared parts, not complete recipes."""
    paths = (path for path in RECIPES.rglob("[!_]*.yaml") if STUDIES not in path.parents)
    return sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in paths)


def _read_tree(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of `path`, applied over those of the recipes that it extends. below: the files that extend it, outermost first."""
    if path in below:
        raise SpartaError(f"recipe {path} extends itself: remove its extends, or that of {below[-1]}")
    tree = _located(read_mapping(path, "recipe"), path.parent)
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    return overlay(_read_tree(find(str(parent), beside=path), (*below, path)), tree)


_MOST_NODES = 200_000
"""Of a YAML text with its aliases written out: a few lines can stand for gigabytes. A pool of a thousand models has some thousands."""


class Loader(yaml.SafeLoader):
    """A YAML loader that rejects duplicate keys in a mapping (SafeLoader silently takes the last one), and aliases that contain themselves or make
    the text larger than any recipe.
    """

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _require_bounded(node, {})
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set[tuple[str, str]]()
        for key, _ in node.value:
            # The merge key << may occur several times.
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value} is there twice", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node


def _require_bounded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many nodes `node` stands for. sizes: of nodes by id, 0 for those around it. Raises MarkedYAMLError for too many."""
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise yaml.MarkedYAMLError(
                problem="an alias stands within its own anchor", problem_mark=node.start_mark
            )
        return sizes[id(node)]
    sizes[id(node)] = 0
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inner = [each for pair in node.value for each in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    total = 1 + sum(_require_bounded(each, sizes) for each in inner)
    if total > _MOST_NODES:
        raise yaml.MarkedYAMLError(
            problem=f"its aliases stand for more than {_MOST_NODES:,} values", problem_mark=node.start_mark
        )
    sizes[id(node)] = total
    return total


def read_yaml(text: str, loader: type[Loader] = Loader) -> Any:
    """The value of a YAML text. Raises ValueError with the problem and its position."""
    try:
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError("not YAML that can be read: it is nested too deeply") from None


def read_mapping(path: Path, what: str, loader: type[Loader] = Loader) -> dict[str, Any]:
    """The mapping in the YAML file `path`. what: the kind of file, for messages. Raises SpartaError naming the file, and OSError where the disk fails."""
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"), loader)
    except UnicodeDecodeError as error:
        raise SpartaError(f"{what} {path} cannot be read: {error}") from error
    except ValueError as error:
        raise SpartaError(f"{what} {path} is {error}") from error
    if not isinstance(tree, dict):
        raise SpartaError(f"{what} {path} must be a mapping of keys to values, found {type(tree).__name__}")
    return tree


def _setting(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise SpartaError(f"{quoted('--set', text)}: write it as key=value, for example --set match.k=3")
    try:
        tree = read_yaml(value)
    except ValueError as error:
        raise SpartaError(f"{quoted('--set', text[:200])}: the value is {error}") from error
    return _located(_nested(key, tree), Path.cwd())


def _nested(key: str, value: Any) -> dict[str, Any]:
    """`value` at the dotted `key`: {"match": {"k": 3}} for match.k."""
    for part in reversed(key.split(".")):
        value = {part: value}
    tree: dict[str, Any] = value
    return tree


def _located(tree: dict[str, Any], origin: Path) -> dict[str, Any]:
    """`tree` with relative paths made absolute, starting at `origin`.

    Always: the paths in `data`, the data files of experts, pool.folder, pool.derived.scores and baseline.budget.like. Of models, and of
    baseline.preference.model, only those that begin with ./ or ../ or name an existing folder.
    """

    def absolute(value: Any, always: bool = False) -> Any:
        if isinstance(value, str) and value.startswith(HUB):
            return value
        if isinstance(value, str) and (
            always or value.startswith(("./", "../")) or (origin / value).is_dir()
        ):
            return str((origin / value).resolve())
        return value

    def sft_data(section: Any) -> Any:
        if not isinstance(section, dict) or not is_sft_file(section.get("data")):
            return section
        return {**section, "data": absolute(section["data"], always=True)}

    def model(section: Any) -> Any:
        if not isinstance(section, dict):
            return section
        located: dict[str, Callable[[Any], Any]] = {"base": absolute, "adapter": absolute, "sft": sft_data}
        return {key: located[key](value) if key in located else value for key, value in section.items()}

    tree = dict(tree)
    if isinstance(data := tree.get("data"), dict):
        tree["data"] = {
            key: absolute(value, always=True)
            if key in ("folder", "train", "validation", "test") and value
            else value
            for key, value in data.items()
        }
    if isinstance(baseline := tree.get("baseline"), dict):
        baseline = dict(baseline)
        for section, key, always in (("budget", "like", True), ("preference", "model", False)):
            if isinstance(inner := baseline.get(section), dict) and inner.get(key):
                baseline[section] = {**inner, key: absolute(inner[key], always)}
        tree["baseline"] = baseline
    if isinstance(pool := tree.get("pool"), dict):
        pool = model(pool)
        if isinstance(pool.get("models"), list):
            pool["models"] = [model(member) for member in pool["models"]]
        if pool.get("folder"):
            pool["folder"] = absolute(pool["folder"], always=True)
        if isinstance(derived := pool.get("derived"), dict) and derived.get("scores"):
            pool["derived"] = {**derived, "scores": absolute(derived["scores"], always=True)}
        tree["pool"] = pool
    if isinstance(evaluation := tree.get("evaluation"), dict) and "judge" in evaluation:
        tree["evaluation"] = {**evaluation, "judge": model(evaluation["judge"])}
    return tree


def validated(kind: type[Settings], tree: Mapping[str, Any], what: str) -> Settings:
    """`tree` validated as `kind`. what: the kind of file and its path, for messages. Raises SpartaError, one sentence with all problems."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise SpartaError(f"{what}: {'; '.join(_explain(item, kind) for item in error.errors())}") from None


def _explain(item: Mapping[str, Any], kind: type[BaseModel]) -> str:
    place = [str(part) for part in item["loc"]]
    name = ".".join(place)
    if item["type"] == "extra_forbidden":
        known = _fields_at(kind, place[:-1])
        return f"unknown key {name}; {hint(place[-1], known, 'keys')}"
    if item["type"] == "missing":
        return f"{name} is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{name}: {message}" if name else message
    return f"{name}: {message[0].lower()}{message[1:]}, not {item['input']!r}"


def _fields_at(section: type[BaseModel], place: Sequence[str]) -> list[str]:
    """The valid keys of `section` at `place`."""
    parts = iter(place)
    for part in parts:
        annotation = section.model_fields[part].annotation
        if get_origin(annotation) in (tuple, dict):
            next(parts, None)  # skip the index or name of the entry
        inner = [
            kind
            for kind in (annotation, *get_args(annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        section = inner[0]
    return sorted(section.model_fields)
