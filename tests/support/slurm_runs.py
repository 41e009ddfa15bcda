"""Shared by tests on the real SLURM: undisturbed reference runs, variants of the profile, failing commands, and the queue as squeue lists it."""

import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from sparta.cluster.attempts import AttemptDir, TaskRecord
from sparta.cluster.slurm.cli import LIVE_STATES
from sparta.cluster.slurm.job_ids import prefix
from sparta.phases.base import ArrayPhase, RowPhase
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge
from sparta.phases.train import Train
from sparta.recipes.load import load
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.shards import LineCounter
from support.openings import begin_or_continue
from support.scripted_run import (
    DEADLINE,
    ROOT,
    advance,
    manifests,
    rows_on_disk,
    wait_until,
    write_recipe,
)

PHASES: tuple[RowPhase, ...] = (Generate(), Judge(), Train())

NOTED = """
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
"""
"""The start of a fake sbatch that knows the name of the submitted job."""


def scene(folder: Path, *more: str, **recipe: Any) -> tuple[Path, StateDir, tuple[object, ...]]:
    """A recipe below `folder` (scripted_run.write_recipe), a state directory, and the command line for both on the development cluster."""
    path, state = write_recipe(folder, **recipe), StateDir(folder / "state")
    return path, state, ("--recipe", path, "--state", state.root, "--profile", "devcluster", *more)


def undisturbed(folder: Path, recipe: Path, last: int) -> dict[str, bytes]:
    """Manifests of a run of `recipe` in one process, up to iteration `last`."""
    run = begin_or_continue(StateDir(folder / "undisturbed"), load(recipe, ["engine.scripted.delay=0"]))
    for t in range(run.state.next_iteration(), last + 1):
        advance(run, t)
    return manifests(run.state.root)


def assert_undisturbed(run: Run, recipe: Path, last: int) -> None:
    """Up to iteration `last`, no work of `run` was done twice, and its commits equal those of an undisturbed single process."""
    assert not done_twice(run, last)
    assert manifests(run.state.root) == undisturbed(run.state.root.parent, recipe, last)


def variant(path: Path, **changes: object) -> Path:
    """The devcluster's profile with other values for some keys."""
    profile = yaml.safe_load((ROOT / "slurm" / "profiles" / "devcluster.yaml").read_text())
    path.write_text(yaml.safe_dump({**profile, **changes}))
    return path


def path_with(folder: Path, name: str, script: str) -> str:
    """A PATH on which the command `name` is a shell script, in which "$real" is the real command."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/bash\nreal={shutil.which(name)}\n{script}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


HALT = """
import os, sys, time
restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
name = os.environ.get("SLURM_JOB_NAME", "no job").split("-", 2)[-1] + f"+{restarts}" * (restarts != "0")
held = os.path.join(os.environ["HELD_BACK"], name)
if "submitit.core._submit" in sys.orig_argv and os.path.exists(held):
    from sparta.engines import scripted
    from sparta.training import factory, preemption
    answers, train_expert = scripted.ScriptedEngine.run, factory.train_expert
    def halt():
        open(held + "@" + os.environ.get("SLURM_ARRAY_TASK_ID", "0"), "w").close()
        while os.path.exists(held) and not preemption.requested():
            time.sleep(0.05)
    def halting(engine, requests):
        for done, completion in enumerate(answers(engine, requests), start=1):
            yield completion
            if done >= 2:
                halt()
    def halting_training(job, kind, progress, base):
        def told(update, updates, loss):
            progress(update, updates, loss)
            if update >= HALTS_AT:
                halt()
        return train_expert(job, kind, told, base)
    scripted.ScriptedEngine.run, factory.train_expert = halting, halting_training
"""
HALTS_AT = 15
"""The update of an expert's training."""


class HeldBack:
    """Tasks that pause after two rows until they are released, so that a test can act while they run, on machines of any speed.

    A training of an expert pauses after update HALTS_AT and reacts to SLURM's signal. Held are tasks of the jobs called `jobs`
    (iter_01-generate-a0) that a launch in `environment` submits; their n-th restart by SLURM is called iter_01-generate-a0+n.
    """

    def __init__(self, folder: Path, *jobs: str) -> None:
        self._held, site = folder / "held", folder / "site"
        for made in (self._held, site):
            made.mkdir()
        for job in jobs:
            (self._held / job).touch()
        self.startup = site / "sitecustomize.py"
        self.startup.write_text(HALT.replace("HALTS_AT", str(HALTS_AT)))
        # The checkout as well: another one may be installed where the tests run.
        self.environment = {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "HELD_BACK": str(self._held)}

    def let_go(self, job: str) -> None:
        (self._held / job).unlink()

    def halted(self, job: str) -> int:
        """The number of tasks of `job` that have paused."""
        return len(list(self._held.glob(f"{job}@*")))


class Listener:
    """Reads the output of a launch while it runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._text = ""
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self._text += line

    def hears(self, words: str) -> None:
        """Wait until the launch has printed the text; fail the test if it ends without."""
        wait_until(lambda: words in self._text or not self._thread.is_alive())
        assert words in self._text, self._text

    def end(self) -> tuple[str, str]:
        """The whole standard output and standard error, after the launch has ended."""
        self._process.wait(timeout=DEADLINE)
        self._thread.join()
        return self._text, self._process.stderr.read() if self._process.stderr else ""


def ended(driver: "subprocess.Popen[str]") -> str:
    """The output of a driver that completed its run."""
    out, err = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 0, err + out
    return out


def queue(run: Run, pattern: str = "%T") -> list[str]:
    """squeue's output for every task of `run` that is queued or running."""
    out = subprocess.run(
        ["squeue", "--array", "--noheader", f"--format=%j|{pattern}"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = (line.split("|", 1) for line in out.stdout.splitlines())
    return [what for name, what in rows if name.startswith(prefix(run))]


def gone(run: Run) -> bool:
    """Whether no job of `run` is queued, running or completing."""
    return not queue(run)


def responses(state: StateDir, t: int = 1) -> int:
    """The number of responses of iteration t on disk."""
    return LineCounter(state.iteration(t).responses).fresh()


def records(run: Run, phase: ArrayPhase) -> list[TaskRecord]:
    """The records of all tasks of `phase` of iteration 1, over all attempts."""
    attempts = AttemptDir(run, phase, 1)
    return [record for attempt in attempts.all() for record in attempts.records(attempt)]


def rows(run: Run, phase: ArrayPhase) -> int:
    """The number of rows of `phase` of iteration 1 on disk."""
    return LineCounter(*(part.folder(run, 1) for part in phase.parts)).fresh()


def at_work(state: StateDir, phase: ArrayPhase, tasks: int, least: int = 1) -> bool:
    """Whether the given number of tasks of `phase` of iteration 1 run and at least `least` rows are written."""
    if not state.run_json.is_file():
        return False
    run = Run.open(state)
    return rows(run, phase) >= least and sum(record.alive for record in records(run, phase)) >= tasks


def done_twice(run: Run, last: int) -> Counter[str]:
    """Keys of iterations 1 to `last` that were computed more than once, with the number of repetitions; none may be missing."""
    twice = Counter[str]()
    for t in range(1, last + 1):
        for phase in PHASES:
            counts = Counter(rows_on_disk(run, phase, t))
            assert set(counts) == {item.key for item in phase.work(run, t)}, f"{phase.name} of iteration {t}"
            twice += Counter(
                {f"{phase.name} {t}: {key}": count - 1 for key, count in counts.items() if count > 1}
            )
    return twice


SCRIPTS = ROOT / "slurm"
PROFILE = ROOT / "slurm" / "profiles" / "devcluster.yaml"


class Batch:
    """A script handed to sbatch, and its log."""

    def __init__(
        self,
        script: str,
        *arguments: object,
        options: tuple[str, ...] = ("-p", "cpu"),
        cwd: Path = ROOT,
        log: Path,
    ) -> None:
        self.log = log
        command = [
            "sbatch",
            "--parsable",
            f"--output={log}",
            *options,
            SCRIPTS / script,
            *map(str, arguments),
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=DEADLINE)
        assert done.returncode == 0, done.stderr
        self.job = done.stdout.strip()

    def asked(self, what: str) -> str:
        """squeue's output for the job, in one of its formats; squeue keeps a job for seconds after its end."""
        command = ["squeue", "--noheader", "--states=all", f"--jobs={self.job}", f"--format={what}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE).stdout.strip()

    def ends(self) -> str:
        """Wait until the job has left the queue; return its final state. Call it before long work, because squeue soon drops the job."""
        states = [""]

        def over() -> bool:
            states.append(self.asked("%T"))
            return states[-1] not in LIVE_STATES

        wait_until(over)
        return states[-1]

    def reaches(self, happened: Callable[[], object]) -> None:
        """Wait until the condition holds, while the job is live."""

        def so_far() -> object:
            done = happened()
            assert done or self.asked("%T") in LIVE_STATES, self.text
            return done

        wait_until(so_far)

    def stopped_when(self, happened: Callable[[], object]) -> None:
        """Send the signal that SLURM sends before a time limit, and wait until the job is back in the queue."""
        self.reaches(happened)
        subprocess.run(["scancel", "--signal=USR1", "--batch", self.job], check=True, timeout=DEADLINE)
        wait_until(lambda: "goes back into the queue" in self.log.read_text())

    @property
    def text(self) -> str:
        return self.log.read_text()


def preempt(nodes: Iterable[str | None]) -> None:
    """Have a job of higher priority preempt all of these nodes."""
    for node in sorted({str(node) for node in nodes}):
        subprocess.run(
            [
                *("sbatch", "--parsable", "--partition=urgent", f"--nodelist={node}", "--gres=gpu:4"),
                *("--time=5", "--output=/dev/null", "--job-name=urgent", "--wrap=sleep 300"),
            ],
            check=True,
            capture_output=True,
            cwd="/",
        )
