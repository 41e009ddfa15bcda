"""Some of the injected faults, and that the harness finds what it is there to find. `make chaos` injects as many as one likes."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE

INJECT = Path(__file__).with_name("inject.py")


def inject(
    faults: int, scenes: Sequence[str], *options: str, before: str = "None"
) -> "subprocess.CompletedProcess[str]":
    """before: what is done to the suite first."""
    program = f"import sys; sys.path.insert(0, {str(INJECT.parents[1])!r}); from chaos import inject; {before}; sys.exit(inject.main())"
    chosen = [word for scene in scenes for word in ("--scene", scene)]
    return subprocess.run(
        [sys.executable, "-c", program, "--faults", str(faults), *chosen, *options],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


@pytest.mark.parametrize(
    "scenes", [("begin", "back", "look", "end"), ("experts", "branch", "score", "export")]
)
def test_whatever_the_disk_does_the_same_command_comes_to_the_same_state(scenes: Sequence[str]) -> None:
    done = inject(8, scenes)
    assert done.returncode == 0, done.stdout + done.stderr


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
        ("back", "EIO", "lost: "),
    ),
    "what killed writers left stays": (
        "from sparta.store import cleanup; cleanup.is_abandoned = lambda path: False",
        ("begin", "kill inside", "left behind: "),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_it_is_found(what: str) -> None:
    before, (scene, kind, words) = BROKEN[what]
    # Of what is written in its place, a part alone matters after a kill: the records of tasks do not.
    faults = 24 if "in its place" in what else 6
    done = inject(faults, [scene], "--kind", kind, before=f"exec({before!r})")
    assert done.returncode == 1 and words in done.stdout, done.stdout + done.stderr
    assert f"once more: python tests/chaos/inject.py --only '{scene}: {kind} at " in done.stdout
