"""The repository's Markdown pages as tests read them: links, anchors, code, and the commands that they tell a reader to type."""

import argparse
import ast
import io
import re
import runpy
import shlex
import sys
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from unittest import mock

from sparta.commands.cli import main as sparta

ROOT = Path(__file__).parents[2]
FOLDERS = ("analysis", "jobs", "requirements", "slurm", "sparta", "state", "tests")
"""Where pages are, beside the top: no page of a virtual environment, and of state/ its own alone."""

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", flags=re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ (.+)$", flags=re.MULTILINE)
_TYPED = ("python ", "sbatch ", "bash ", "make ", "pip ", "conda ", "sparta ")
"""A code span that begins like this is a command."""


@dataclass(frozen=True)
class Page:
    """A Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        """Language and content of the fenced blocks."""
        return _FENCE.findall(self.text)

    @cached_property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @cached_property
    def spans(self) -> list[str]:
        """Texts between single backticks."""
        return _SPAN.findall(self.prose)

    @cached_property
    def links(self) -> list[str]:
        """Targets of links and pictures."""
        return [one or other for one, other in _LINK.findall(_SPAN.sub("", self.prose))]

    @cached_property
    def anchors(self) -> set[str]:
        """The anchors that GitHub makes from headings."""
        made: list[str] = []
        for heading in _HEADING.findall(self.prose):
            base = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            again = sum(re.fullmatch(rf"{re.escape(base)}(-\d+)?", other) is not None for other in made)
            made.append(f"{base}-{again}" if again else base)
        return set(made)

    def section(self, heading: str) -> str:
        """The text below `heading`, up to the next one."""
        _, found, rest = self.text.partition(f"# {heading}\n")
        assert found, f"{self.name} has no heading {heading}"
        return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]

    @cached_property
    def commands(self) -> list[list[str]]:
        """The words of every command: of the bash blocks, and of code spans that are one."""
        lines = [
            line
            for language, block in self.blocks
            if language == "bash"
            for line in block.replace("\\\n", " ").splitlines()
        ]
        lines += [span for span in self.spans if span.startswith(_TYPED)]
        words = (shlex.split(line, comments=True) for line in lines)
        return [command for line in words for command in _parts(line)]


def _parts(words: list[str]) -> list[list[str]]:
    """The commands of a line, without the dots that stand for more options, and without the file that output goes to."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word == ">":
            break
        if word in ("&&", "|"):
            parts.append([])
        elif word != "...":
            parts[-1].append(word)
    return [part for part in parts if part]


PAGES = [
    Page(path)
    for path in sorted(
        [
            *ROOT.glob("*.md"),
            *(
                path
                for folder in FOLDERS
                for path in (ROOT / folder).rglob("*.md")
                if folder != "state" or path.parent == ROOT / folder
            ),
        ]
    )
]
BY_NAME = {page.name: page for page in PAGES}


class _Parsed(Exception):
    """Carries the parsed arguments of a program."""

    def __init__(self, found: argparse.Namespace) -> None:
        super().__init__()
        self.found = found


def parsed(program: Path | str, arguments: list[str]) -> argparse.Namespace:
    """What the parser of a program (a script, the name of a module, or sparta) makes of `arguments`, options given in full; nothing else is run.

    Raises AssertionError with the parser's own words where it refuses them.
    """
    make, parse, said = argparse.ArgumentParser.__init__, argparse.ArgumentParser.parse_args, io.StringIO()

    def in_full(self: argparse.ArgumentParser, *given: Any, **named: Any) -> None:
        make(self, *given, **{**named, "allow_abbrev": False})

    def stop(self: argparse.ArgumentParser, *given: Any) -> argparse.Namespace:
        raise _Parsed(parse(self, *given))

    with (
        mock.patch.object(argparse.ArgumentParser, "__init__", in_full),
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        mock.patch.object(sys, "argv", [str(program), *arguments]),
        mock.patch.object(sys, "path", [*sys.path]),
        redirect_stderr(said),
    ):
        try:
            if program == "sparta":
                sparta(arguments)
            elif isinstance(program, Path):
                sys.path.insert(0, str(program.parent))
                runpy.run_path(str(program), run_name="__main__")
            else:
                runpy.run_module(str(program), run_name="__main__")
        except _Parsed as made:
            return made.found
        except SystemExit:
            raise AssertionError(said.getvalue().strip()) from None
    raise AssertionError(f"{program} parses no arguments")


@cache
def options(*command: str) -> frozenset[str]:
    """The long options of a command of jobs/, or of one of its actions, by its own help."""
    shown, (name, *action) = io.StringIO(), command
    with (
        mock.patch.object(sys, "stdout", shown),
        mock.patch.object(sys, "argv", [name, *action, "--help"]),
        suppress(SystemExit),
    ):
        runpy.run_path(str(ROOT / "jobs" / f"{name}.py"), run_name="__main__")
    return frozenset(re.findall(r"(?<![\w-])--[a-z][\w-]*", shown.getvalue()))


@cache
def defined() -> frozenset[str]:
    """Names of the classes, functions, methods and upper-case constants of the library."""
    found = set()
    for path in (ROOT / "sparta").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(found)


GAP = "…"
"""Stands for the variable parts of a message."""


@cache
def sentences() -> str:
    """All strings of the library and the batch scripts, one a line, with GAP for inserted values."""
    found = []
    for path in (ROOT / "sparta").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    found += [path.read_text(encoding="utf-8") for path in (ROOT / "slurm").glob("*.sh")]
    return "\n".join(" ".join(text.split()) for text in found)


def is_said(fragment: str) -> bool:
    """Whether some string of the library matches `fragment`."""
    gap = f"[^\\n]*?{GAP}[^\\n]*?"
    pattern = gap.join(re.escape(part) for part in fragment.strip(f" {GAP}").split(GAP))
    return re.search(pattern, sentences()) is not None
