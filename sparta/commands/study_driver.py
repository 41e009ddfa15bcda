"""Drives the cells of a study side by side within one limit of GPUs, each in a process of its own.

All state is on disk: a driver that was killed leaves running cells alone, and the next one waits for them and starts the rest.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sparta.commands.cell_server import CellFork, CellServer
from sparta.errors import SpartaError
from sparta.names import PACKAGE
from sparta.recipes.schema import Recipe
from sparta.screen import Screen
from sparta.store import files
from sparta.store.lock import holder
from sparta.store.process import identify, lives, machine
from sparta.studies.estimate import Where, gpus_needed
from sparta.studies.grid import Grid
from sparta.studies.layout import StudyDir, is_pool
from sparta.studies.manifest import (
    CellProcess,
    CellResult,
    CellState,
    manifest_of,
    process_of,
    request_of,
    result_of,
    state_of,
)
from sparta.studies.shares import shares

STARTS = 3
"""A cell whose process ends without a result, killed by somebody or for its memory, is started so often."""
POLL_SECONDS = 0.2
SECONDS_TO_STOP = 60.0
"""How long cells may take to stop after an interrupt."""
LOG_LINES = 3


@dataclass(frozen=True)
class Job:
    """A cell, or a run of an initial pool, as the driver sees it. needs: jobs that must be done first. width: GPUs of its widest task."""

    name: str
    recipe: Recipe
    needs: tuple[str, ...]
    width: int
    asked: str


def jobs_of(grid: Grid, place: StudyDir, where: Where) -> list[Job]:
    """All jobs of the study, initial pools first. Raises SpartaError where the profile is not usable."""
    runs = [
        *((pool.name, pool.recipe, ()) for pool in grid.pools),
        *(
            (cell.name, cell.recipe, (*([cell.pool] if cell.pool else []), *cell.needs))
            for cell in grid.cells
        ),
    ]
    return [
        Job(name, recipe, needs, gpus_needed(recipe, where, place, name), request_of(recipe, grid.study))
        for name, recipe, needs in runs
    ]


class StudyDriver:
    """Drives the jobs of one study.

    gpus: the GPUs of this machine that cells are given, each to one cell; empty where cells submit their tasks, or where there are none. `still_ours`
    raises LockLost where the study's lock was lost. preloaded: modules that all cells need, which are imported once.
    """

    def __init__(
        self,
        place: StudyDir,
        grid: Grid,
        where: Where,
        limit: int,
        gpus: Sequence[str],
        screen: Screen,
        still_ours: Callable[[], None],
        preloaded: Sequence[str],
    ) -> None:
        self._place, self._grid, self._where = place, grid, where
        self._limit, self._gpus, self._screen = limit, tuple(gpus), screen
        self._still_ours = still_ours
        self._jobs = {job.name: job for job in jobs_of(grid, place, where)}
        self._running: dict[str, CellProcess] = {}
        self._children: dict[str, CellFork] = {}
        self._server = CellServer(preloaded)
        self._starts: dict[str, int] = {}
        self._ended: dict[str, CellState] = {}
        for job in self._jobs.values():
            if job.width > limit:
                raise SpartaError(
                    f"the cell {job.name} needs {job.width} GPUs for one task, and the study's limit is {limit}: raise the limit"
                )

    def drive(self) -> None:
        """Run every job that is not done, until each is done or has failed. An interrupt stops the running cells."""
        for name, job in self._jobs.items():
            state, _ = state_of(self._place, name, job.asked)
            found = process_of(self._place, name)
            if found is not None:
                self._running[name] = found
            elif state == "done":
                self._ended[name] = state
        if self._running:
            self._screen.say(
                f"{len(self._running)} cells of an earlier driver still run: waiting for them too"
            )
        try:
            self._note()
            while len(self._ended) < len(self._jobs):
                self._still_ours()
                changed = self._reap()
                changed |= self._start()
                changed |= self._give_up()
                if changed:
                    self._note()
                else:
                    time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            self._interrupt()
            raise
        finally:
            self._server.close()

    def _note(self) -> None:
        files.write_json(self._place.manifest, manifest_of(self._place, self._grid))

    def _reap(self) -> bool:
        """Take note of cells that have ended. Returns whether there were any."""
        ended = []
        for name in self._running:
            child = self._children.get(name)
            if child is not None and child.watched:
                alive = child.returncode is None
            else:
                alive = process_of(self._place, name) is not None
            if not alive:
                ended.append(name)
        for name in ended:
            del self._running[name]
            child = self._children.pop(name, None)
            # A process that was killed has left its note.
            files.remove(self._place.process(name))
            self._judge(name, child.returncode if child is not None else None)
        return bool(ended)

    def _judge(self, name: str, status: int | None) -> None:
        """Whether the job `name`, whose process has ended, is done, has failed, or is to be started again."""
        result = result_of(self._place, name)
        asked = self._jobs[name].asked
        if result is None or (result.asked != asked and not result.error):
            if status is not None and status < 0:
                how = f"was killed by signal {-status}"
            elif result is not None and name not in self._starts:
                how = "ended with what the study asked of it before it was changed"
            else:
                how = "ended without a result"
            if self._starts.get(name, 0) < STARTS:
                self._screen.say(f"{name}: its process {how}; starting it again")
                return
            last = _last_lines(self._place, name)
            result = CellResult(
                asked,
                error=f"its process {how}, {STARTS} times; the last lines of {self._place.log(name)}: {last}",
            )
            files.write_json(self._place.result(name), result)
        self._ended[name] = "failed" if result.error else "done"
        self._screen.say(f"{name}: {'failed: ' + result.error if result.error else 'done'}{self._count()}")

    def _count(self) -> str:
        cells = [name for name in self._jobs if not is_pool(name)]
        return f" ({sum(name in self._ended for name in cells)} of {len(cells)} cells have ended)"

    def _start(self) -> bool:
        """Start the cells that can run now. Returns whether there were any."""
        ready = [
            job
            for name, job in self._jobs.items()
            if name not in self._ended
            and name not in self._running
            and all(self._ended.get(need) == "done" for need in job.needs)
        ]
        used = sum(process.share for process in self._running.values())
        given = shares(self._limit - used, [job.width for job in ready])
        for job, share in zip(ready, given, strict=False):
            self._spawn(job, share)
        return bool(given)

    def _give_up(self) -> bool:
        """Note the jobs that need one that has failed. Returns whether there were any."""
        found = False
        for name, job in self._jobs.items():
            failed = next((need for need in job.needs if self._ended.get(need) == "failed"), None)
            if failed is None or name in self._ended:
                continue
            why = result_of(self._place, failed)
            what = "its initial pool" if is_pool(failed) else "the cell that it needs"
            error = f"{what}, {failed}, failed: {why.error if why else ''}"
            files.write_json(self._place.result(name), CellResult(job.asked, error=error))
            self._ended[name] = "failed"
            self._screen.say(f"{name}: failed: {error}{self._count()}")
            found = True
        return found

    def _spawn(self, job: Job, share: int) -> None:
        taken = {gpu for process in self._running.values() for gpu in process.gpus}
        gpus = tuple(gpu for gpu in self._gpus if gpu not in taken)[:share]
        arguments = ["study", str(self._place.root), "--cell", job.name, "--share", str(share)]
        arguments += self._where.options
        before = result_of(self._place, job.name)
        if before is not None and before.error:
            # Otherwise a process that is killed would leave the old error as its own. The scores of a cell that was done stay until there are new ones.
            files.remove(self._place.result(job.name))
        files.make_folder(self._place.log(job.name).parent)
        log = self._place.log(job.name)
        with files.os_errors_named(log), log.open("ab"):
            child = self._server.start(arguments, self._environment(share, gpus), log)
        self._children[job.name] = child
        self._starts[job.name] = self._starts.get(job.name, 0) + 1
        self._running[job.name] = CellProcess(identify(child.pid), share, gpus)
        files.write_json(self._place.process(job.name), self._running[job.name])

    def _environment(self, share: int, gpus: Sequence[str]) -> dict[str, str]:
        environment = {**os.environ}
        # Of the study's driver, not of the cells': see sparta/store/lock.py.
        environment.pop("SPARTA_DRIVER_JOB", None)
        code = str(PACKAGE.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [code, environment.get("PYTHONPATH")]))
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        else:
            environment.setdefault("OMP_NUM_THREADS", str(share))
        return environment

    def _interrupt(self) -> None:
        """Stop the running cells as Ctrl-C would, and wait for them."""
        stopped = end_cells(self._place, list(self._running))
        for name, host in stopped.elsewhere.items():
            self._screen.say(f"{name} runs on {host} and goes on: stop it there")
        self._note()


@dataclass(frozen=True)
class Stopped:
    """here: how many processes of cells were interrupted. elsewhere: by cell, the host on which its process still runs."""

    here: int
    elsewhere: Mapping[str, str]


def end_cells(place: StudyDir, names: Sequence[str]) -> Stopped:
    """Interrupt the processes of the cells `names` on this machine, and wait until they have stopped: finished work stays."""
    running = {name: found for name in names if (found := process_of(place, name)) is not None}
    here = {name: found.process for name, found in running.items() if found.process.machine == machine()}
    for process in here.values():
        # Not SIGINT, which a driver that was started in the background ignores, and its children with it.
        with suppress(ProcessLookupError):
            if lives(process):
                os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + SECONDS_TO_STOP
    while any(process_of(place, name) for name in here) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 4)
    elsewhere = {name: holder(place.cell(name)) for name in running if name not in here}
    return Stopped(len(here), {name: now.claim.host for name, now in elsewhere.items() if now is not None})


def _last_lines(place: StudyDir, name: str) -> str:
    lines = place.log(name).read_text(encoding="utf-8", errors="replace").splitlines()
    return " / ".join(line.strip() for line in lines[-LOG_LINES:])
