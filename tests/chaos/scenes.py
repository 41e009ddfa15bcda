"""Commands on small scripted runs: what is done again and again while the disk fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from support.expert_recipes import write_school
from support.scripted_run import DEADLINE, advance, command, quiet, write_recipe

from chaos import shim
from chaos.shim import Fault
from sparta.cluster.attempts import AttemptDir
from sparta.commands.cli import main
from sparta.phases.judge import Judge
from sparta.recipes.load import adjust
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.process import ProcessId, identify, lives
from sparta.store.run import Run

HUNG = 124
"""The exit status of a command that did not end by itself."""
_OF_SUBMITIT = re.compile(
    r"Traceback \(most recent call last\):\n(?:  .*\n)*?.*submitit/core/submission.py.*\n(?:(?!.*/sparta/)(?:  .*|\s*)\n)*\S.*\n"
)
"""A traceback in the log of a task that comes from the library that starts it, where nothing of the suite was running."""


@dataclass(frozen=True)
class Done:
    """A command that has ended. status: its exit status, less than 0 for a signal. passages: operation, path and door of each, if they were counted. logs: of its tasks."""

    status: int
    out: str
    err: str
    passages: tuple[tuple[str, str, str], ...] = ()
    logs: str = ""

    def complaint(self, scene: "Scene", place: Path) -> str:
        """What is wrong with how it ended; "" where it went well, was killed, or ended with one sentence that names something in `place`."""
        for text in (self.out, self.err, _OF_SUBMITIT.sub("", self.logs)):
            if found := re.search(r"Traceback|Exception ignored|Error:", text):
                return f"a traceback:\n{text[max(0, found.start() - 300) :][:3500]}"
        if self.status == HUNG:
            return f"it hung for {DEADLINE:.0f} s"
        if self.status == 1:
            lines = [line for line in self.err.splitlines() if not line.startswith("note: ")]
            said = [line for line in lines if line.startswith("error: ")]
            if len(said) != 1 or lines[0] != said[0] or "[Errno" in said[0]:
                return f"no sentence: {self.err!r}"
            if str(place) not in lines[0]:
                return f"a sentence that names no file: {self.err!r}"
            return ""
        if self.status in (scene.status, -signal.SIGKILL):
            return ""
        return f"exit status {self.status}: {self.err}"


@dataclass(frozen=True)
class Scene:
    """A command on a state. start: makes what is there before it, in an empty folder; what lies below the folder fails. state: its state there.

    status: the exit status with which it ends well. reads: it only shows the state, and what it prints is a result too. makes: a file beside the
    state. processes: its tasks are processes of their own. after: what is wrong in `place` once it has ended well, beside all that is looked at
    in every scene.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    start: Callable[[Path], None] = lambda place: None
    state: str = "state"
    status: int = 0
    reads: bool = False
    makes: str = ""
    processes: bool = False
    after: Callable[[Path], str] = lambda place: ""


class Workshop:
    """A folder with recipes, finished states to start from, and a place for one state at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for split in ("validation", "test"):
            rows = ({"id": f"{split}{n}", "prompt": f"{split} {n}", "answer": str(n)} for n in range(2))
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        small = {"models": 3, "combats": 4, "prompts": 6, "iterations": 2}
        data = {"train": "prompts.jsonl", "validation": "../validation.jsonl", "test": "../test.jsonl"}
        plain = write_recipe(_made(folder / "plain"), **small, data={**data, "grading": "exact"})
        school = write_school(
            _made(folder / "school"), names=("ada", "bea", "cem"), rows=3, combats=4, prompts=6, iterations=1
        )
        parts = write_recipe(
            _made(folder / "parts"), **small, cluster={"kind": "local", "at_once": 1, "tasks": 2}
        )

        def copy(name: str) -> Callable[[Path], None]:
            return lambda place: files.copy_tree(folder / name, _made(place / "state"))

        def typed(*words: object) -> Callable[[Path], list[str]]:
            return lambda place: [str(word).format(place=place) for word in words]

        state, back = "{place}/state", ("--resume", "{place}/state/iter_01")
        self.scenes = (
            Scene("begin", typed("launch", "--recipe", plain, "--state", state)),
            Scene("experts", typed("launch", "--recipe", school, "--state", state)),
            Scene("pool", typed("init-pool", "--recipe", school, "--state", state)),
            Scene("back", typed("launch", *back), copy("scored")),
            Scene(
                "branch",
                typed("launch", *back, "--fork", "{place}/branch", "--set", "match.k=1"),
                copy("scored"),
                "branch",
            ),
            Scene("score", typed("evaluate", state), copy("finished")),
            Scene("look", typed("status", state, "--json"), copy("scored"), reads=True),
            Scene("watch", typed("status", state, "--json"), copy("half"), status=3, reads=True),
            Scene(
                "export",
                typed("export-pairs", state, "--out", "{place}/pairs"),
                copy("scored"),
                makes="pairs",
            ),
            Scene("end", typed("launch", "--state", state, "--cancel"), self._at_work, after=_still_there),
            Scene(
                "parts", typed("launch", "--recipe", parts, "--state", state, "--iters", 1), processes=True
            ),
        )
        self._build()

    def scene(self, name: str) -> Scene:
        return next(scene for scene in self.scenes if scene.name == name)

    def _build(self) -> None:
        """The states that scenes start from."""
        first = self.place("first")
        self._well(self.scene("begin"), first)
        files.copy_tree(first / "state", _made(self.folder / "finished"))
        self._well(self.scene("score"), first)
        files.copy_tree(first / "state", _made(self.folder / "scored"))
        run = Run.open(StateDir(first / "state"))
        run.refreeze(adjust(run.recipe, ["iterations=3"]))
        advance(run, 3, upto="generate")
        files.copy_tree(run.state.root, _made(self.folder / "half"))

    def _well(self, scene: Scene, place: Path) -> None:
        done = self.run(scene, place)
        assert done.status == 0, done.err

    def _at_work(self, place: Path) -> None:
        """The half-done state, judging in a process of this machine: any process does."""
        files.copy_tree(self.folder / "half", _made(place / "state"))
        run = Run.open(StateDir(place / "state"))
        attempts = AttemptDir(run, Judge(), 3)
        attempts.assign([Judge().missing(run, 3)], "local")
        process = subprocess.Popen(["sleep", "600"])
        files.write_json(attempts.folder / "a0-00000.process", identify(process.pid))

    def place(self, name: str) -> Path:
        """A new folder."""
        return _made(self.folder / name)

    def run(self, scene: Scene, place: Path, fault: Fault | None = None, count: bool = False) -> Done:
        """The command of `scene` in `place`, with a fault below it."""
        here = replace(fault or Fault(""), folder=str(place))
        if scene.processes:
            return self._apart(scene, place, here)
        out, err, noted = (self.folder / name for name in ("out", "err", "passages"))
        child = os.fork()
        if child == 0:
            _perform(scene.arguments(place), here, out, err, noted if count else None)
        status = _ended(child)
        lines = noted.read_text().splitlines() if count else ()
        passages = [(each[0], each[1], each[2]) for line in lines if (each := line.split("\t"))]
        return Done(status, out.read_text(errors="replace"), err.read_text(errors="replace"), tuple(passages))

    def _apart(self, scene: Scene, place: Path, fault: Fault) -> Done:
        """In a process of its own, as a person types it, for its tasks to have the fault too."""
        site = Path(__file__).parent / "site"
        program, *arguments = scene.arguments(place)
        path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", ""))))
        try:
            done = subprocess.run(
                command(program, *arguments),
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                env={**quiet(), "PYTHONPATH": path, "SPARTA_CHAOS": json.dumps(asdict(fault))},
            )
        except subprocess.TimeoutExpired as hung:
            return Done(HUNG, str(hung.stdout), str(hung.stderr))
        logs = "".join(path.read_text(errors="replace") for path in place.rglob("logs/*_log.*"))
        return Done(done.returncode, done.stdout, done.stderr, logs=logs)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _perform(arguments: list[str], fault: Fault, out: Path, err: Path, noted: Path | None) -> None:
    """In a child of the harness: the command, and its end."""
    status = 1
    try:
        for path, descriptor in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.argv = [f"{arguments[0]}.py", *arguments[1:]]
        passages: list[str] = []
        note = (lambda *passage: passages.append("\t".join(passage))) if noted else None
        shim.install(fault, note)
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        if noted is not None:
            noted.write_text("\n".join(passages))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _ended(child: int) -> int:
    """Its exit status, less than 0 for a signal; a command that does not end is ended, and has HUNG."""
    give_up = time.monotonic() + DEADLINE
    while time.monotonic() < give_up:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.003)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return HUNG


def _still_there(place: Path) -> str:
    """The process of `_at_work` that was to be ended; it is ended here then."""
    process = files.read_json(next(place.rglob("a0-00000.process")), ProcessId)
    give_up = time.monotonic() + 10
    while lives(process):
        if time.monotonic() > give_up:
            os.kill(process.pid, signal.SIGKILL)
            return "the task goes on"
        time.sleep(0.01)
    return ""
