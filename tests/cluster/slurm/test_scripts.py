"""The sbatch script of every phase, word for word, as golden/ has it for the a100-16 profile.

After a change that is meant: python tests/cluster/slurm/test_scripts.py writes the files anew; read the difference before it is committed.
"""

import re
import shlex
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec
from support.scripted_run import rehearsal

from sparta.cluster.attempts import Piece
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.launcher import Slurm
from sparta.cluster.slurm.profile import load_profile
from sparta.cluster.slurm.submit import script
from sparta.cluster.slurm.worker import ShardJob
from sparta.phases.base import PhaseSpec
from sparta.store.layout import StateDir
from sparta.store.run import Run

GOLDEN = Path(__file__).parent / "golden"
STATE = Path("/cluster/home/state")
SCORED = PhaseSpec("validation", (("toy", ("iter_00", "iter_08")),))
GRADED = PhaseSpec("test", (("essay", ("iter_08-model0",)),))
SCRIPTS: dict[str, tuple[tuple[Piece, ...], int, str | None, bool]] = {
    "generate": ((Piece("generate", 5, 0),), 16, None, False),
    "judge": ((Piece("judge", 5, 1),), 16, None, False),
    "merge": ((Piece("merge", 5, 0),), 1, None, False),
    "train": ((Piece("train", 5, 0),), 10, None, False),
    "evaluate": ((Piece("evaluate", 0, 0, SCORED),), 16, None, False),
    "grade": ((Piece("grade", 0, 0, GRADED),), 16, None, False),
    "detached-generate": ((Piece("generate", 1, 0),), 16, None, True),
    "detached-judge": ((Piece("judge", 1, 0),), 16, "afterok:1000", False),
    "detached-commit-and-plan": ((Piece("commit", 1, 0), Piece("plan", 2, 0)), 1, "afterok:1001", False),
}
"""name -> what the job does, how many tasks, what it depends on, whether it is held."""


JUDGE = {"base": "umpire", "engine": {"kind": "api", "api": {"url": "http://127.0.0.1:8000/v1"}}}


def made(name: str, folder: Path) -> str:
    """The script, with what differs between two checkouts named instead."""
    recipe = rehearsal(
        folder, models=10, combats=1000, cluster={"kind": "slurm"}, evaluation={"judge": JUDGE}
    )
    info = msgspec.structs.replace(Run.describe(recipe), run_id="0123456789ab")
    launcher = Slurm(Run(StateDir(STATE), recipe, info))
    pieces, tasks, dependency, hold = SCRIPTS[name]
    [array] = launcher.arrays(ShardJob(STATE, pieces), tasks, dependency, hold)
    text = script(array, load_profile("a100-16"))
    text = text.replace(shlex.quote(sys.executable), "PYTHON")
    return re.sub(r"jobs/code/[0-9a-f]{12}", "jobs/code/CODE", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_is_the_golden_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "installed", lambda: False)
    assert made(name, tmp_path) == (GOLDEN / f"{name}.sh").read_text()


def test_every_golden_file_is_compared() -> None:
    assert {path.stem for path in GOLDEN.glob("*.sh")} == set(SCRIPTS)


if __name__ == "__main__":
    import tempfile

    cli.installed = lambda: False
    for script_name in SCRIPTS:
        with tempfile.TemporaryDirectory() as scratch:
            (GOLDEN / f"{script_name}.sh").write_text(made(script_name, Path(scratch)))
