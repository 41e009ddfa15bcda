"""Commands on small scripted runs, and what a state comes to: what is done again and again while the disk fails."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from support.expert_recipes import write_school
from support.scripted_run import command, quiet, write_recipe

from chaos import shim
from chaos.shim import Fault
from sparta.commands.begin import check_state
from sparta.commands.cli import main
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.temporaries import is_temporary

DEADLINE_SECONDS = 90.0
UNSEEN = ("jobs", "superseded", "run.json", "looks.json")
"""What no result depends on, and what says when and by whom something was made."""
MEASURED = ("stats.json", "log.jsonl", "report.json")


@dataclass(frozen=True)
class Done:
    """A command that has ended. status: its exit status, less than 0 for a signal. passages: operation and path of each, if they were counted."""

    status: int
    out: str
    err: str
    passages: tuple[tuple[str, str], ...] = ()

    @property
    def complaint(self) -> str:
        """What is wrong with how it ended; "" where it went well, was killed, or ended with one sentence."""
        for text in (self.out, self.err):
            if found := re.search(r"Traceback|Exception ignored|Error:", text):
                return f"a traceback:\n{text[max(0, found.start() - 300) :][:3500]}"
        if self.status == 1 and not (
            self.err.startswith(("error: ", "note: ")) and self.err.count("error: ") == 1
        ):
            return f"no sentence: {self.err!r}"
        return "" if self.status in (0, 1, -signal.SIGKILL) else f"exit status {self.status}: {self.err}"


@dataclass(frozen=True)
class Scene:
    """A command on a state. start: makes what is there before it, in an empty folder; what lies below the folder fails. state: its state there.

    processes: its tasks are processes of their own.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    start: Callable[[Path], None] = lambda place: None
    state: str = "state"
    processes: bool = False


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

        def finished(place: Path) -> None:
            shutil.copytree(folder / "finished", place / "state")

        def launch(*arguments: object) -> Callable[[Path], list[str]]:
            return lambda place: ["launch", *(str(each).format(place=place) for each in arguments)]

        self.scenes = (
            Scene("begin", launch("--recipe", plain, "--state", "{place}/state")),
            Scene("experts", launch("--recipe", school, "--state", "{place}/state")),
            Scene("back", launch("--resume", "{place}/state/iter_01"), finished),
            Scene(
                "branch",
                launch("--resume", "{place}/state/iter_01", "--fork", "{place}/branch", "--set", "match.k=1"),
                finished,
                "branch",
            ),
            Scene("score", lambda place: ["evaluate", str(place / "state")], finished),
            Scene("look", lambda place: ["status", str(place / "state")], finished),
            Scene(
                "parts", launch("--recipe", parts, "--state", "{place}/state", "--iters", 1), processes=True
            ),
        )
        done = self.run(self.scenes[0], self.place("first"))
        assert done.status == 0, done.err
        (folder / "first" / "state").rename(folder / "finished")

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
        passages = [tuple(line.split(" ", 1)) for line in noted.read_text().splitlines()] if count else []
        return Done(status, out.read_text(errors="replace"), err.read_text(errors="replace"), tuple(passages))

    def _apart(self, scene: Scene, place: Path, fault: Fault) -> Done:
        """In a process of its own, as a person types it, for its tasks to have the fault too."""
        site = Path(__file__).parent / "site"
        program, *arguments = scene.arguments(place)
        path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", ""))))
        done = subprocess.run(
            command(program, *arguments),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            env={**quiet(), "PYTHONPATH": path, "SPARTA_CHAOS": json.dumps(asdict(fault))},
        )
        logs = "".join(path.read_text(errors="replace") for path in place.rglob("logs/*_log.*"))
        return Done(done.returncode, done.stdout + logs, done.stderr)


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
        shim.install(fault, lambda operation, path: passages.append(f"{operation} {path}"))
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
    """Its exit status, less than 0 for a signal; a command that does not end is ended, and has 124."""
    give_up = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < give_up:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.003)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124


def contents(state: Path) -> dict[str, object]:
    """What a state comes to: bytes of whole files, sets of rows of shards, without measurements, times and identities."""
    found: dict[str, object] = {}
    for path in _files(state):
        name = str(path.relative_to(state))
        if path.parts[len(state.parts)] in UNSEEN or path.name in MEASURED:
            continue
        if path.name.startswith("a") and path.suffix == ".jsonl":
            rows = found.setdefault(str(Path(name).parent), set())
            assert isinstance(rows, set)
            rows |= {
                _without(line, "seconds")
                for line in path.read_bytes().splitlines(keepends=True)
                if line.endswith(b"\n")
            }
        elif path.name == "looks.jsonl":
            found[name] = [_without(line, "time") for line in path.read_bytes().splitlines()]
        else:
            found[name] = path.read_bytes()
    return found


def leftovers(place: Path) -> list[str]:
    """Temporary files and folders below `place`."""
    return [str(path.relative_to(place)) for path in place.rglob("*") if is_temporary(path.name)]


def valid(state: Path) -> str:
    """What is wrong with the committed iterations of `state`, by the suite's own account; "" where nothing is."""
    try:
        check_state(Run.open(StateDir(state)))
    except Exception as error:
        return str(error)
    return ""


def difference(expected: dict[str, object], found: dict[str, object]) -> str:
    """The files in which two states differ; "" where they are equal."""
    names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    return f"another state: {', '.join(names)}" if names else ""


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not is_temporary(path.name))


def _without(line: bytes, field: str) -> str:
    row = json.loads(line)
    row.pop(field, None)
    return json.dumps(row, sort_keys=True)
