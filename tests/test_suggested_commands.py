"""Commands in messages can be pasted into a shell, whatever is in the paths, and are spelled as the reader would type them."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.house import MODULES, ROOT, name_of, tree_of
from support.scripted_run import quiet, sentence, typed, write_recipe

from sparta import names
from sparta.names import installed_by, quoted, suggested

ODD = "my state's (1) $HOME"

WRITES_PAGES = {"toy/build.py", "commands/recipe.py"}
"""Modules whose text is a page of the checkout, not a message."""


def test_words_come_back_from_a_shell_as_they_were() -> None:
    line = suggested("launch", "--state", Path("/x") / ODD, "--set", "data={train: 'a b'}", "--iters", 3)
    given = ["--state", f"/x/{ODD}", "--set", "data={train: 'a b'}", "--iters", "3"]
    assert shlex.split(line) == ["python", "jobs/launch.py", *given]
    echoed = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {quoted(*given)}"], capture_output=True, text=True
    )
    assert echoed.stdout.splitlines() == given


@pytest.mark.parametrize("where", ["wheel", "checkout"])
def test_who_typed_sparta_or_has_no_checkout_reads_sparta(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert suggested("init_pool", "--fetch") == "python jobs/init_pool.py --fetch"
    assert installed_by("gpu") == "pip install -r requirements/gpu.txt"
    if where == "wheel":
        monkeypatch.setattr(names, "INSTALLED", True)
        assert installed_by("gpu") == "pip install 'sparta-alignment[vllm]'"
    else:
        monkeypatch.setattr(sys, "argv", ["/env/bin/sparta", "launch"])
    assert suggested("init_pool", "--fetch") == "sparta init-pool --fetch"


def test_a_message_s_command_runs_when_it_is_pasted(tmp_path: Path) -> None:
    state = tmp_path / ODD
    said = sentence(typed("status", state))
    _, found, pasted = said.partition("start one with ")
    assert found and shlex.split(pasted)[-1] == str(state)
    recipe = shlex.quote(str(write_recipe(tmp_path)))
    python = shlex.quote(sys.executable)
    begun = shell(f"{pasted.replace('python', python, 1)} --recipe {recipe} --iters 1")
    assert begun.returncode == 0, begun.stderr
    assert (state / "iter_01").is_dir()
    typed("launch", "--state", state, "--cancel")
    seen = typed("status", state)
    assert seen.returncode == 0, seen.stderr


def shell(line: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, env=quiet())


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """Text of the module's strings but docstrings, with what stands behind it: source code in braces, or nothing."""
    tree = tree_of(path)
    # A string that is a statement of its own documents what stands before it.
    documentation = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for part, following in zip(node.values, [*node.values[1:], None], strict=True):
                if isinstance(part, ast.Constant):
                    yield str(part.value), ast.unparse(following) if following else ""
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in documentation | inside
        ):
            yield node.value, ""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_message_spells_a_command_by_hand(path: Path) -> None:
    if name_of(path) in {"names.py", *WRITES_PAGES}:
        return
    by_hand = [
        text for text, _ in texts(path) if re.search(r"jobs/\w+\.py|\bsparta [a-z]+ --|pip install", text)
    ]
    unquoted = [
        f"{text}{{{code}}}" for text, code in texts(path) if code and re.search(r"(^|[\s(])--[a-z-]+ $", text)
    ]
    assert by_hand == [], "render it with sparta.names.suggested or installed_by"
    assert unquoted == [], "quote the value with sparta.names.quoted"
