"""Sample rows for the tests of the store."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sparta.store.records import Vote

EARLIER_STATE = Path(__file__).parents[1] / "fixtures" / "earlier_state"
"""A run of version 0.1.0: iteration 1 committed and scored, the second one judged and not yet replayed."""

Start = Callable[..., "subprocess.Popen[str]"]
"""The fixture `start`: code and arguments of a Python process."""


def vote(
    combat: int, judge: str = "m2", score: float | None = 7.0, seconds: float = 0.0, raw: str = "7"
) -> Vote:
    return Vote(f"c{combat:04d}", "m0", judge, score, raw, 1, seconds=seconds)


_LEAVE = """
import sys
from pathlib import Path
from sparta.store.temporaries import temporary_beside
for path in map(Path, sys.argv[2:]):
    left = temporary_beside(path)
    left.mkdir() if sys.argv[1] == "folders" else left.touch()
    print(left)
"""


def left_by_the_dead(*paths: Path, kind: str = "files") -> list[Path]:
    """A temporary file (or kind="folders") of each of `paths`, whose writer is gone."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _LEAVE, kind, *map(str, paths)], capture_output=True, text=True, check=True
    )
    return [Path(line) for line in done.stdout.splitlines()]
