"""One cell of a study, in a process of its own: its initial pool, its iterations, its scores, and what stays of its adapters."""

import json
import os
import signal
import time
import traceback
from contextlib import suppress
from pathlib import Path

from sparta.cluster.gpus import visible_gpus
from sparta.cluster.slurm.detached import live_jobs
from sparta.cluster.slurm.job_ids import noted_jobs
from sparta.commands.evaluate import score
from sparta.commands.evaluate_request import EvaluateRequest
from sparta.commands.launch import launch
from sparta.commands.launch_request import LaunchRequest
from sparta.commands.study_request import StudyRequest
from sparta.errors import SpartaError
from sparta.evaluation.selection import ALL, INITIAL, LAST
from sparta.evaluation.summary import CheckpointChoice, read_summary
from sparta.names import hint
from sparta.recipes.load import thaw
from sparta.recipes.schema import Recipe
from sparta.screen import Screen
from sparta.store import files
from sparta.store.disk import in_words, present
from sparta.store.layout import StateDir, parse_checkpoint
from sparta.store.lock import RunLock
from sparta.store.one_copy import share
from sparta.store.process import identify
from sparta.store.pruned import prune
from sparta.store.run import Run
from sparta.store.run_budget import spent
from sparta.store.stats import IterationStats
from sparta.studies.estimate import gpus_needed
from sparta.studies.layout import StudyDir, is_pool
from sparta.studies.manifest import (
    CellEntry,
    CellProcess,
    CellResult,
    read_manifest,
    request_of,
)
from sparta.studies.study_file import Study, load_study
from sparta.training.adapter_folder import WEIGHTS

SECONDS_TO_END = 120.0
"""How long tasks that have written their results may take to end."""


def run_cell(request: StudyRequest, screen: Screen) -> None:
    """Carry out the cell `request.cell` of a begun study, and write its result, also where it fails. Raises what made it fail."""
    # A stop request from the study's driver: the same as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    place = StudyDir(Path(request.study).resolve())
    manifest, study = read_manifest(place), load_study(place.study_yaml)
    entries = {entry.name: entry for entry in (*manifest.pools, *manifest.cells)}
    name = request.cell or ""
    if name not in entries:
        raise SpartaError(f"the study in {place.root} has no cell {name}; {hint(name, entries, 'cells')}")
    recipe = thaw(place.recipe(name))
    asked = request_of(recipe, study)
    process = CellProcess(identify(os.getpid()), request.share, visible_gpus())
    files.write_json(place.process(name), process)
    try:
        cell = _Cell(place, study, entries[name], recipe, request, screen)
        files.write_json(place.result(name), cell.carry_out(asked))
    except Exception as error:
        # Where the disk is full, the note fails as well; the original error is the one to report.
        with suppress(SpartaError):
            files.write_json(place.result(name), CellResult(asked, error=_in_words(error, place)))
        raise
    finally:
        files.remove(place.process(name))


def _in_words(error: Exception, place: StudyDir) -> str:
    if isinstance(error, OSError):
        return str(in_words(error, place.root))
    if isinstance(error, SpartaError):
        return str(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}; its log has more"


class _Cell:
    """A cell with everything that it is carried out with."""

    def __init__(
        self,
        place: StudyDir,
        study: Study,
        entry: CellEntry,
        recipe: Recipe,
        request: StudyRequest,
        screen: Screen,
    ) -> None:
        self._place, self._study, self._entry, self._recipe = place, study, entry, recipe
        self._request, self._screen = request, screen
        self._state = place.cell(entry.name)
        self._is_pool = is_pool(entry.name)

    def carry_out(self, asked: str) -> CellResult:
        self._launch(pool_only=True)
        if "adapters" in self._study.share:
            self._share_adapters()
        if not self._is_pool:
            self._launch(pool_only=False)
        if self._recipe.scored_on:
            self._score()
        run = Run.open(self._state)
        _wait_for_ends(run)
        choices = {name: scored.choices for name, scored in read_summary(self._state).tasks.items()}
        if self._study.keep != "all" and not self._is_pool:
            self._prune(run, [choice for several in choices.values() for choice in several])
        stats = [files.read_measured(run.iteration(t).stats, IterationStats) for t in self._state.committed()]
        measured = [found for found in stats if found is not None]
        return CellResult(
            asked,
            choices=choices,
            tokens=spent(run),
            gpu_seconds=sum(found.gpu_seconds for found in measured),
            task_seconds=sum(phase.busy for found in measured for phase in found.phases.values()),
        )

    def _launch(self, pool_only: bool) -> None:
        """Start or continue the run. Of a begun run, the recipe in its state counts, and only how it is carried out is set."""
        begun = present(self._state.run_json)
        width = gpus_needed(self._recipe, self._request.where, self._place, self._entry.name)
        settings = [f"cluster.at_once={max(1, self._request.share // width)}"]
        if begun:
            settings.append(f"evaluation={json.dumps(self._recipe.evaluation.model_dump(mode='json'))}")
        launch(
            LaunchRequest(
                recipe=None if begun else str(self._place.recipe(self._entry.name)),
                state=self._state.root,
                iterations=self._recipe.iterations,
                settings=settings,
                cluster=self._request.cluster,
                profile=self._request.profile,
                pool_only=pool_only,
            ),
            self._screen,
        )

    def _share_adapters(self) -> None:
        """Make the adapters of the initial pool links to one copy in the study."""
        with RunLock(self._state, self._screen.say):
            adapters = self._state.iteration(0).adapters
            saved = share(self._place.library, sorted(adapters.glob(f"*/{WEIGHTS}")))
        if saved:
            self._screen.say(f"{saved:,} bytes of the initial pool are on disk once for the whole study")

    def _score(self) -> None:
        """Score the checkpoints; the answers of the initial pool are those of its own run."""
        tasks, data = self._recipe.scored_on, self._recipe.data
        on = data.task or "own"
        tested = self._study.compare_on == "test" and ("own" not in tasks or data.test is not None)
        score(
            EvaluateRequest(
                state=self._state.root,
                split="both" if tested else "validation",
                every=not self._is_pool,
                select_on=on if self._study.choose_on == "trained" else None,
                cluster=self._request.cluster,
                profile=self._request.profile,
                answers_from=self._answers_from(),
            ),
            self._screen,
        )

    def _answers_from(self) -> Path | None:
        if self._entry.pool is None or "answers" not in self._study.share:
            return None
        return self._place.cell(self._entry.pool).root

    def _prune(self, run: Run, choices: list[CheckpointChoice]) -> None:
        """Remove the adapters that the study does not keep."""
        kept = {choice.checkpoint for choice in choices if choice.what in (INITIAL, LAST, ALL)}
        last = self._state.last_committed() or 0
        if self._study.keep == "last" or not kept:
            kept |= {f"{run.iteration(last).root.name}-{name}" for name in run.models}
        staying = set()
        for checkpoint in kept:
            t, name = parse_checkpoint(checkpoint)
            staying.add(self._state.inside(run.pool(t)[name].adapter) / WEIGHTS)
        every = [path for t in self._state.committed() for path in _weights(self._state, t)]
        with RunLock(self._state, self._screen.say):
            removed = prune(
                self._state,
                [path for path in every if path not in staying],
                f"keep: {self._study.keep} in {self._place.study_yaml}",
            )
        if removed:
            self._screen.say(f"{removed:,} bytes of adapters removed (keep: {self._study.keep})")


def _wait_for_ends(run: Run) -> None:
    """Wait until SLURM has ended the run's last tasks: their GPUs go to another cell. Only for a while, as an ending job may hang."""
    if not noted_jobs(run):
        return
    deadline = time.monotonic() + SECONDS_TO_END
    while live_jobs(run) and time.monotonic() < deadline:
        time.sleep(1.0)


def _weights(state: StateDir, t: int) -> list[Path]:
    return sorted(state.iteration(t).adapters.glob(f"*/{WEIGHTS}"))
