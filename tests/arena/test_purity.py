"""The arena stays pure: what it may import."""

import ast
from pathlib import Path

import pytest

import sparta.arena

MODULES = sorted(Path(sparta.arena.__file__).parent.glob("*.py"))
ALLOWED = {"collections", "dataclasses", "itertools", "math", "numpy", "pydantic", "random", "re", "typing"}
OURS = {"sparta.arena", "sparta.errors", "sparta.rng"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_an_arena_module_imports_no_files_no_clock_and_nothing_heavy(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            assert name.split(".")[0] in ALLOWED or ".".join(name.split(".")[:2]) in OURS, name


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_randomness_comes_only_from_the_stream_that_is_passed_in(module: Path) -> None:
    drawn_from = [
        node
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"random", "np.random"}
    ]
    assert {node.attr for node in drawn_from} <= {"Random"}
