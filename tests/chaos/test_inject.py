"""A fault at every door, and that the harness finds what it is there to find. `make chaos` injects as many as one likes."""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE

INJECT = Path(__file__).with_name("inject.py")


def inject(
    scenes: Sequence[str], kinds: Sequence[str], *what: str, before: str = "None", seconds: float = DEADLINE
) -> "subprocess.CompletedProcess[str]":
    """what: all doors if nothing is said. before: what is done to the suite first."""
    program = f"import sys; sys.path.insert(0, {str(INJECT.parents[1])!r}); from chaos import inject; {before}; sys.exit(inject.main())"
    chosen = [
        word
        for option, values in (("--scene", scenes), ("--kind", kinds))
        for value in values
        for word in (option, value)
    ]
    return subprocess.run(
        [sys.executable, "-c", program, *(what or ("--doors",)), *chosen],
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def all_right(done: "subprocess.CompletedProcess[str]", doors: int) -> None:
    """Nothing came out wrong, and there were at least so many faults."""
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) faults", done.stdout)
    assert found is not None and int(found[1]) >= doors, done.stdout


@pytest.mark.parametrize(
    ("kinds", "doors"), [(("kill",), 100), (("twice", "short"), 100)], ids=["kill", "twice-short"]
)
def test_a_fault_at_any_door_of_a_small_run_changes_nothing(kinds: Sequence[str], doors: int) -> None:
    all_right(inject(("begin",), kinds), doors)


LONG = 1200.0
"""Seconds that a walk may take on a machine that other tests share."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("scenes", "what", "doors"),
    [
        (("begin",), ("--kind", "error"), 500),
        (("look", "watch", "end", "back", "branch", "export", "score"), ("--except", "begin"), 400),
    ],
    ids=["begin", "begun"],
)
def test_a_fault_at_any_other_door_changes_nothing(
    scenes: Sequence[str], what: Sequence[str], doors: int
) -> None:
    all_right(inject(scenes, (), "--doors", *what, seconds=LONG), doors)


@pytest.mark.long
@pytest.mark.parametrize(
    "what",
    [
        "begin: kill before at 1700, then late for 0.5 s",
        "begin: kill before at 2600, then late for 0.5 s in part 3",
        "back: kill before at 1300, then late for 0.5 s in part 1",
        "branch: kill before at 1400, then late for 0.5 s in part 2",
    ],
)
def test_what_another_process_has_just_made_may_be_seen_late(what: str) -> None:
    all_right(inject((), (), "--only", what), 2)


BROKEN = {
    "an error that nobody puts into words": (
        "from sparta.store import disk; disk.explain = lambda error, path: error",
        ("begin", "EIO", "a traceback"),
    ),
    "a file that is written in its place": (
        """
from contextlib import contextmanager
from sparta.store import files
@contextmanager
def in_its_place(path):
    files.make_folder(path.parent)
    with path.open("wb") as file:
        yield file
files.replacing = in_its_place
""",
        ("begin", "kill inside", ""),
    ),
    "what was to be set aside is removed": (
        """
from sparta.commands import resume
from sparta.store import files
resume.set_aside = lambda state, paths: [files.remove(path) for path in paths]
""",
        ("back", "twice", "lost: "),
    ),
    "what killed writers left stays": (
        "from sparta.store import cleanup; cleanup.is_abandoned = lambda path: False",
        ("begin", "kill inside", "left behind: "),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_it_is_found(what: str) -> None:
    before, (scene, kind, words) = BROKEN[what]
    done = inject((scene,), (kind,), before=f"exec({before!r})")
    assert done.returncode == 1 and words in done.stdout, done.stdout + done.stderr
    assert (
        f"once more: python tests/chaos/inject.py --doors --kind {shlex.quote(kind)} --scene {scene}"
        in done.stdout
    )
