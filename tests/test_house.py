"""The rules of the house: who imports whom, what a module may cost, what it may be called."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Literal, get_args, get_origin

import annotated_types
import pytest
import yaml
from pydantic import BaseModel
from support.house import (
    COMING,
    JOBS,
    LINE,
    MODULES,
    PROGRAMS,
    at_import,
    circles,
    imported,
    name_of,
    room_of,
    shares,
    tree_of,
    wrong_imports,
)
from support.requirements import pins
from support.scripted_run import ROOT, advance, begin

from sparta.commands.cli import PROGRAMS as PROGRAMS_BY_NAME
from sparta.methods.registry import sections
from sparta.recipes.schema import Recipe

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
    "rapidfuzz",
    "sacrebleu",
    "textblob",
    "sentence_transformers",
}
MAY_COST = {
    # The weights of the toy pool are made by a program of its own, which nothing else imports.
    **dict.fromkeys(("toy/build.py", "toy/curriculum.py", "toy/measure.py", "toy/tokenizer.py"), HEAVY),
    "arena/replay.py": {"numpy"},
    # A class on one of vLLM's, imported where vLLM already is.
    "engines/vllm/grammar_cache.py": {"vllm"},
}
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base_utils"}


@pytest.mark.parametrize("path", [*MODULES, *PROGRAMS], ids=name_of)
def test_a_room_imports_only_from_rooms_to_its_left(path: Path) -> None:
    assert wrong_imports(path) == []


def test_every_room_stands_in_the_line() -> None:
    assert {room_of(path) for path in MODULES} == set(LINE) - COMING


def test_no_room_holds_more_than_its_share() -> None:
    assert max(shares().values()) <= 0.15


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert circles() == []


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
    documentation, *imports, main = tree_of(path).body
    assert isinstance(documentation, ast.Expr) and f"python jobs/{path.name}" in path.read_text()
    assert set(imported(iter(imports))) == {"sys", "sparta.commands.cli.run_program"}
    assert ast.unparse(main).splitlines() == [
        "if __name__ == '__main__':",
        f"    sys.exit(run_program({path.stem!r}))",
    ]


def test_every_command_is_a_program_of_the_checkout_too() -> None:
    # scripts copies what a checkout has already.
    assert {path.stem.replace("_", "-") for path in JOBS} == PROGRAMS_BY_NAME.keys() - {"scripts"}


@pytest.mark.parametrize(
    ("script", "arguments", "status"),
    [
        ("launch", ["--help"], 0),
        ("init_pool", ["--help"], 0),
        ("prepare_data", ["--help"], 0),
        ("evaluate", ["--help"], 0),
        ("sample", ["--help"], 0),
        ("status", ["--help"], 0),
        ("recipe", ["--help"], 0),
        ("recipe", ["docs"], 0),
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


def test_conda_and_pip_install_the_same_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [section] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert sorted(section) == sorted(
        ["--constraint requirements/constraints.txt", "--editable .", *pins("gpu.txt")]
    )


def test_a_gpu_machine_has_the_versions_of_a_cpu_machine() -> None:
    assert set(pins("cpu.txt")) <= set(pins("gpu.txt"))


@pytest.mark.parametrize("name", ["gpu.txt", "dev.txt", "track.txt", "constraints.txt"])
def test_every_version_is_exact_and_named_once(name: str) -> None:
    found = pins(name)
    assert all(pin.count("==") == 1 for pin in found)
    names = [pin.partition("==")[0].lower() for pin in found]
    assert len(set(names)) == len(names)


def recipe_sections(model: type[BaseModel] = Recipe) -> Iterator[type[BaseModel]]:
    """The recipe's sections."""
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from recipe_sections(kind)


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


@pytest.mark.parametrize("section", dict.fromkeys(recipe_sections()), ids=lambda section: section.__name__)
def test_every_number_of_the_recipe_is_bounded_and_every_section_closed(section: type[BaseModel]) -> None:
    assert section.model_config.get("extra") == "forbid"
    assert section.model_config.get("frozen") is True
    assert section.__doc__
    for name, field in section.model_fields.items():
        assert is_bounded(field.annotation, field.metadata), f"{section.__name__}.{name} takes any number"


ASK_PHASES = {"cluster", "status"}
"""Rooms that carry out and show whatever phases a method has: they know none by its class or name."""


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) in ASK_PHASES], ids=name_of)
def test_phases_are_asked_and_not_known(path: Path) -> None:
    nodes = list(ast.walk(tree_of(path)))
    spelled = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not spelled & set(chain(*sections())), "a phase's name is spelled out"
    classes = {name.rpartition(".")[2] for name in imported(iter(nodes)) if name.startswith("sparta.phases.")}
    assert classes <= {"Phase", "PhaseSpec", "WorkItem", "Expected", "Device"}, (
        "a phase is known by its class"
    )


def test_no_two_public_classes_share_a_name() -> None:
    places = defaultdict[str, list[str]](list)
    for path in sorted((ROOT / "sparta").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
