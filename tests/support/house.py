"""The structure of the code, read from its imports: the line of rooms, their sizes, import cycles.

A room is a folder or a file of sparta/. `python tests/support/house.py` prints its size, its share of the library, and what breaks a rule.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINE = [
    "errors",
    "rng",
    "names",
    "screen",
    "arena",
    "chat",
    "recipes",
    "store",
    "toy",
    "grading",
    "tasks",
    "engines",
    "training",
    "pool",
    "phases",
    "evaluation",
    "verify",
    "methods",
    "cluster",
    "status",
    "studies",
    "commands",
]
"""A room imports only from rooms to its left. Files of one room may import each other."""
COMING: set[str] = set()
"""Rooms that have their place in the line and no file yet."""
PROGRAMS_IMPORT = {
    "jobs": {"commands"},
    "analysis": {*LINE[: LINE.index("evaluation") + 1], "studies"},
}
"""Programs outside the library and what they may import (past a door, see `DOORS`); the library imports none of them."""
DOORS = {
    ("recipes", "arena"): {"sparta.arena.rules"},
    ("store", "arena"): {"sparta.arena.reputation", "sparta.arena.reweighting"},
    ("grading", "arena"): {"sparta.arena.votes"},
    ("analysis", "studies"): {"sparta.studies.layout", "sparta.studies.manifest"},
}
"""Rooms that another one enters by these modules alone: a knob of the game is defined once, a grade is read as a vote is, a study is read by its
manifest."""

MODULES = sorted(path for path in (ROOT / "sparta").rglob("*.py") if path != ROOT / "sparta" / "__init__.py")
JOBS = sorted((ROOT / "jobs").glob("*.py"))
PROGRAMS = [*JOBS, *sorted((ROOT / "analysis").glob("*.py"))]


def name_of(path: Path) -> str:
    """Path relative to sparta/; of a program with its folder."""
    return str(path.relative_to(ROOT)).removeprefix("sparta/")


def room_of(path: Path) -> str:
    """The room of a module, or the folder of a program."""
    return Path(name_of(path)).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Full names of imports: modules, and names from modules (which may be modules too)."""
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


def wrong_imports(path: Path) -> list[str]:
    """The imports of the file that break a rule: from a room to the right, or past the door modules of a room."""
    room = room_of(path)
    allowed = PROGRAMS_IMPORT.get(room) or set(LINE[: LINE.index(room)])
    wrong = []
    for name in imported(ast.walk(tree_of(path))):
        parts = name.split(".")
        if parts[0] in PROGRAMS_IMPORT and room not in PROGRAMS_IMPORT:
            wrong.append(f"{name}: nothing imports a program")
        if parts[0] != "sparta" or parts[1:] in ([], ["__version__"]) or parts[1] == room:
            continue
        doors = DOORS.get((room, parts[1]))
        if parts[1] not in allowed:
            wrong.append(f"{name}: {room} stands left of {parts[1]}")
        elif doors is not None and not any(f"{name}.".startswith(f"{door}.") for door in doors):
            wrong.append(f"{name}: {room} may import {', '.join(sorted(doors))} alone")
    return wrong


def lines_by_room() -> Mapping[str, int]:
    """Lines of code, room by room, in the order of the line."""
    counted = Counter[str]()
    for path in MODULES:
        counted[room_of(path)] += len(path.read_text(encoding="utf-8").splitlines())
    return {room: counted[room] for room in LINE if room in counted}


def shares() -> Mapping[str, float]:
    """Each room's share of the library's lines."""
    lines = lines_by_room()
    return {room: count / sum(lines.values()) for room, count in lines.items()}


def circles() -> list[tuple[str, ...]]:
    """Import cycles at import time, each cycle once."""
    modules = {
        str(path.relative_to(ROOT)).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path
        for path in MODULES
    }
    arrows = {
        module: {
            other
            for name in imported(at_import(tree_of(path).body))
            for other in (name, name.rpartition(".")[0])
            if other in modules and other != module
        }
        for module, path in modules.items()
    }
    done, found = set[str](), []

    def visit(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            found.append(way[way.index(module) :])
        elif module not in done:
            for other in sorted(arrows[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in arrows:
        visit(module, ())
    return found


if __name__ == "__main__":
    for room, share in shares().items():
        print(f"{room:12}{lines_by_room()[room]:7,} lines{share:8.1%}")
    for path in [*MODULES, *PROGRAMS]:
        for sentence in wrong_imports(path):
            print(f"{name_of(path)} imports {sentence}")
    for circle in circles():
        print("circle:", " -> ".join(circle))
