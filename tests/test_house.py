"""The rules of the house: who imports whom, what a module may cost, what it may be called."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, get_args, get_origin

import annotated_types
import pytest
import yaml
from pydantic import BaseModel
from rehearsal import ROOT, advance, begin

from sparta.recipe import Recipe

UNDERNEATH = {
    "errors",
    "rng",
    "chat_template",
    "prompts",
    "recipe",
    "recipe_engine",
    "recipe_pool",
    "recipe_files",
    "store",
}
WORKERS = UNDERNEATH | {"arena"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "rng": set(),
    "chat_template": {"errors"},
    "prompts": {"errors", "chat_template"},
    "arena": {"errors", "rng"},
    "recipe_engine": {"arena"},
    "recipe_pool": {"errors", "arena", "recipe_engine", "store"},
    "recipe": {"arena", "recipe_engine", "recipe_pool"},
    "recipe_files": {"errors", "recipe", "recipe_pool", "arena"},
    "store": UNDERNEATH,
    "engines": UNDERNEATH,
    "training": UNDERNEATH,
    "toy": {"rng", "chat_template", "prompts"},
    "tasks": UNDERNEATH | {"arena", "toy"},
    "phases": WORKERS | {"engines", "training", "tasks", "toy"},
    "methods": {"phases", "recipe", "errors"},
    "cluster": WORKERS | {"engines", "training", "tasks", "phases", "methods"},
    "jobs": UNDERNEATH | {"cluster", "tasks"},
}
"""Room -> the rooms that it may import from, beside itself."""

EXACTLY = {
    ("recipe", "arena"): {"sparta.arena.rules"},
    ("recipe_engine", "arena"): {"sparta.arena.rules"},
    ("recipe_pool", "arena"): {"sparta.arena.rules"},
    ("recipe_pool", "store"): {"sparta.store.layout"},
    ("recipe_files", "arena"): {"sparta.arena.rules"},
    ("tasks", "arena"): {"sparta.arena.votes"},
}
"""Doors that open to one module alone. The rules of the game are the recipe's too, so that a knob is defined once; names of models are
checked by who makes paths of them; a judge's grade is read as its vote is."""

HEAVY = {
    "torch",
    "transformers",
    "vllm",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "submitit",
    "numpy",
    "scipy",
    "pandas",
    "matplotlib",
    "sympy",
    "math_verify",
}
MAY_COST = {
    # The weights of the toy pool are made by a program of its own, which nothing else imports.
    **dict.fromkeys(("toy/build.py", "toy/curriculum.py", "toy/measure.py", "toy/tokenizer.py"), HEAVY),
    "arena/replay.py": {"numpy"},
    # A class on one of vLLM's, imported where vLLM already is.
    "engines/vllm_forms.py": {"vllm"},
}
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base_utils"}

MODULES = sorted((ROOT / "sparta").rglob("*.py"))
JOBS = sorted((ROOT / "jobs").glob("*.py"))


def name_of(path: Path) -> str:
    """Path relative to sparta/, or jobs/ and the file's name."""
    return str(path.relative_to(ROOT)).removeprefix("sparta/")


def room_of(path: Path) -> str:
    return "jobs" if path.parent.name == "jobs" else Path(name_of(path)).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Full names of what is imported: modules, and names from modules (which may be modules)."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Statements that run when the module is imported."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        yield node
        for part in ("body", "orelse", "finalbody"):
            if not typing_only:
                yield from at_import(getattr(node, part, []))


@pytest.mark.parametrize("path", [*MODULES, *JOBS], ids=name_of)
def test_a_room_imports_only_from_the_rooms_below_it(path: Path) -> None:
    room = room_of(path)
    if path == ROOT / "sparta" / "__init__.py":
        room = "errors"
    for name in imported(ast.walk(tree_of(path))):
        parts = name.split(".")
        if parts[0] == "jobs":
            pytest.fail("nothing imports a command")
        if parts[0] != "sparta" or len(parts) == 1:
            continue
        # `from sparta import rng` names the room last, `from sparta.rng import stream` in the middle.
        other = parts[1]
        if other in ("__version__", room):
            continue
        assert other in ROOMS[room], (
            f"{name_of(path)} imports {name}: {room} may import {sorted(ROOMS[room])}"
        )
        if (room, other) in EXACTLY:
            assert name.rpartition(".")[0] in EXACTLY[room, other], f"{name_of(path)} imports {name}"


def test_every_room_has_a_rule() -> None:
    assert {room_of(path) for path in MODULES} - {"__init__"} <= set(ROOMS)


@pytest.mark.parametrize("path", [*MODULES, *JOBS], ids=name_of)
def test_importing_a_module_imports_nothing_heavy(path: Path) -> None:
    found = {name.split(".")[0] for name in imported(at_import(tree_of(path).body))} & HEAVY
    assert found <= MAY_COST.get(name_of(path), set())


@pytest.mark.parametrize("path", [*MODULES, *JOBS], ids=name_of)
def test_a_module_is_named_for_what_it_holds_and_says_what_it_is_for(path: Path) -> None:
    assert not set(path.stem.split("_")) & VAGUE
    assert ast.get_docstring(tree_of(path)), f"{name_of(path)} has no docstring"


@pytest.mark.parametrize("path", JOBS, ids=name_of)
def test_a_command_is_thin(path: Path) -> None:
    tree = tree_of(path)
    assert len(path.read_text().splitlines()) < 80
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] == ["main"]
    assert not any(isinstance(node, (ast.ClassDef, ast.For, ast.While)) for node in ast.walk(tree))


@pytest.mark.parametrize(
    ("script", "arguments", "status"),
    [
        ("launch", ["--help"], 0),
        ("init_pool", ["--help"], 0),
        ("prepare_data", ["--help"], 0),
        ("evaluate", ["--help"], 0),
        ("status", ["--help"], 0),
        ("status", ["STATE"], 3),
    ],
)
def test_asking_for_help_or_status_imports_nothing_heavy(
    script: str, arguments: list[str], status: int, tmp_path: Path
) -> None:
    if "STATE" in arguments:
        advance(begin(tmp_path), 1)
        arguments = [str(tmp_path / "state")]
    code = f"""
import runpy, sys
sys.argv = {[script, *arguments]!r}
try:
    runpy.run_path({str(ROOT / "jobs" / (script + ".py"))!r}, run_name="__main__")
except SystemExit as end:
    code = end.code or 0
print(sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == status, done.stderr
    assert set(ast.literal_eval(done.stderr.strip().splitlines()[-1])) <= {"numpy"}


def pins(name: str) -> list[str]:
    """The requirements of a file, those of the files that it includes with them."""
    lines = [
        line.strip()
        for line in (ROOT / "requirements" / name).read_text().splitlines()
        if line.strip() and line[0] != "#"
    ]
    return [
        pin
        for line in lines
        for pin in (pins(line.removeprefix("-r ")) if line.startswith("-r ") else [line])
    ]


def test_conda_and_pip_install_the_same_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [section] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert sorted(section) == sorted(
        ["--constraint requirements/constraints.txt", "--editable .", *pins("gpu.txt")]
    )


def test_a_gpu_machine_has_the_versions_of_a_cpu_machine() -> None:
    assert set(pins("cpu.txt")) <= set(pins("gpu.txt"))


@pytest.mark.parametrize("name", ["gpu.txt", "dev.txt", "constraints.txt"])
def test_every_version_is_exact_and_named_once(name: str) -> None:
    found = pins(name)
    assert all(pin.count("==") == 1 for pin in found)
    names = [pin.partition("==")[0].lower() for pin in found]
    assert len(set(names)) == len(names)


def sections(model: type[BaseModel] = Recipe) -> Iterator[type[BaseModel]]:
    """The recipe's sections."""
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from sections(kind)


def is_bounded(annotation: object, metadata: list[object]) -> bool:
    """Whether every number that fits `annotation` is held by a bound on at least one side."""
    bounds = (annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt)
    bounded = any(isinstance(entry, bounds) for entry in metadata)
    inner, origin = get_args(annotation), get_origin(annotation)
    if origin is Literal:
        return True
    if hasattr(annotation, "__metadata__"):
        return any(
            is_bounded(inner[0], [entry, *getattr(entry, "metadata", [])])
            for entry in annotation.__metadata__
        )
    if inner:
        return all(is_bounded(part, metadata) for part in inner)
    return annotation not in (int, float) or bounded


@pytest.mark.parametrize("section", dict.fromkeys(sections()), ids=lambda section: section.__name__)
def test_every_number_of_the_recipe_is_bounded_and_every_section_closed(section: type[BaseModel]) -> None:
    assert section.model_config.get("extra") == "forbid"
    assert section.model_config.get("frozen") is True
    assert section.__doc__
    for name, field in section.model_fields.items():
        assert is_bounded(field.annotation, field.metadata), f"{section.__name__}.{name} takes any number"
