"""A study: shown, run, continued, cancelled."""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from pathlib import Path

import msgspec

from sparta.cluster.gpus import visible_gpus
from sparta.cluster.launcher import Launcher
from sparta.cluster.slurm.launcher import Slurm
from sparta.commands.begin import prepare_begin
from sparta.commands.cancel import cancel_all, end_drivers
from sparta.commands.cell_server import HEAVY, OURS
from sparta.commands.study_cell import run_cell
from sparta.commands.study_detach import detach
from sparta.commands.study_driver import StudyDriver, end_cells, jobs_of
from sparta.commands.study_request import OpenStudy, StudyRequest, opened_study
from sparta.commands.study_tables import show_plan, show_status, show_table
from sparta.errors import SpartaError
from sparta.evaluation.derived_pool import derive, resolved
from sparta.methods.budget import budgeted
from sparta.names import suggested
from sparta.pool.hub_download import fetch, wanted_by
from sparta.recipes.schema import Recipe
from sparta.screen import Screen
from sparta.store import files
from sparta.store.disk import present
from sparta.store.lock import RunLock, holder
from sparta.store.run import Run
from sparta.studies.comparison import table_of
from sparta.studies.estimate import disk_of_pool, estimate_of, launcher_of, limit_of
from sparta.studies.grid import Cell, Grid
from sparta.studies.layout import StudyDir
from sparta.studies.manifest import StudyManifest, freeze, manifest_of, process_of


class ExitStatus(IntEnum):
    """How the command ends. IN_PROGRESS also stands for a study that stopped before its end."""

    DONE = 0
    FAILED = 1
    IN_PROGRESS = 3


def carry_out(request: StudyRequest, screen: Screen) -> ExitStatus:
    """Do what is requested of a study. Raises SpartaError; finished work stays on disk."""
    if request.cell is not None:
        run_cell(request, screen)
        return ExitStatus.DONE
    opened = opened_study(request)
    if request.fetch:
        _fetch(opened, screen)
        return ExitStatus.DONE
    if request.cancel:
        _cancel(opened, screen)
        return ExitStatus.DONE
    if request.status:
        return _show_status(opened, request, screen)
    if request.table:
        return _show_table(opened, request, screen)
    if request.dry_run:
        return _show_dry_run(opened, request, screen)
    if request.detach:
        detach(opened, request, screen)
        return ExitStatus.DONE
    return _drive(opened, request, screen)


def _drive(opened: OpenStudy, request: StudyRequest, screen: Screen) -> ExitStatus:
    """Run every cell that is not done."""
    # A stop request from a person or from SLURM: the same as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    place, grid, where = opened.place, opened.grid, request.where
    RunLock(place.lock, screen.say).refuse_if_held()
    launcher = launcher_of(grid.cells[0].recipe, where, place, grid.cells[0].name)
    limit = limit_of(grid.study.limit, launcher, os.cpu_count() or 1)
    gpus = () if isinstance(launcher, Slurm) else visible_gpus()
    if gpus and limit > len(gpus):
        raise SpartaError(
            f"study {grid.study.name}: limit is {limit}, and this machine has {len(gpus)} GPUs: lower it, or leave it out for all of them"
        )
    with RunLock(place.lock, screen.say) as lock:
        freeze(place, grid, opened.text)
        driver = StudyDriver(
            place, grid, where, limit, gpus, screen, lock.check, preloaded(grid, launcher, gpus)
        )
        screen.say(
            f"study {grid.study.name}: {len(grid.cells)} cells in {place.root}, {launcher.where}, limit {limit}"
        )
        driver.drive()
        manifest = manifest_of(place, grid)
        table = table_of(place, grid, manifest)
        files.write_json(place.table, table)
    show_table(screen.console, table)
    return _ended(manifest, place, screen)


def preloaded(grid: Grid, launcher: Launcher, gpus: Sequence[str]) -> tuple[str, ...]:
    """The modules that the cells' processes need themselves: where they run their tasks on the CPU, also those that work with models."""
    works = launcher.name == "inline" and not gpus
    return (
        *OURS,
        *(HEAVY if works and any(cell.recipe.engine.kind in ("hf", "auto") for cell in grid.cells) else ()),
    )


def _ended(manifest: StudyManifest, place: StudyDir, screen: Screen) -> ExitStatus:
    """Say how the study ended. Raises SpartaError where a cell failed."""
    failed = [cell.name for cell in manifest.cells if cell.state == "failed"]
    done = sum(cell.state == "done" for cell in manifest.cells)
    screen.say(f"{done} of {len(manifest.cells)} cells are done")
    if failed:
        shown = ", ".join(failed[:3]) + f" and {len(failed) - 3} more" * (len(failed) > 3)
        raise SpartaError(
            f"{len(failed)} of {len(manifest.cells)} cells failed ({shown}): {suggested('study', place.root, '--status')} says why; the same command "
            "tries them again"
        )
    return ExitStatus.DONE if done == len(manifest.cells) else ExitStatus.IN_PROGRESS


def status_of_study(opened: OpenStudy) -> tuple[StudyManifest, dict[str, str]]:
    """Where a study stands, and how far the run of each of its cells is."""
    manifest = manifest_of(opened.place, opened.grid)
    recipes = {cell.name: cell.recipe.iterations for cell in opened.grid.cells}
    progress = {}
    for name, planned in recipes.items():
        state = opened.place.cell(name)
        if present(state.run_json):
            progress[name] = f"{max(state.last_committed() or 0, 0)} of {planned} iterations"
    return manifest, progress


def exit_status(manifest: StudyManifest, driven: bool) -> ExitStatus:
    """FAILED: a cell failed, and nobody drives the study."""
    states = {cell.state for cell in manifest.cells}
    if states == {"done"}:
        return ExitStatus.DONE
    return ExitStatus.FAILED if "failed" in states and not driven else ExitStatus.IN_PROGRESS


def _show_status(opened: OpenStudy, request: StudyRequest, screen: Screen) -> ExitStatus:
    manifest, progress = status_of_study(opened)
    now = holder(opened.place.lock)
    driver = str(now.claim) if now is not None and now.alive else None
    code = exit_status(manifest, driver is not None)
    if request.json:
        fields = {
            **msgspec.to_builtins(manifest),
            "progress": progress,
            "driver": driver,
            "exit_code": int(code),
        }
        print(json.dumps(fields, indent=2))
        return code
    show_status(screen.console, manifest, progress)
    screen.say(f"driver: {driver}" if driver else "nobody drives it" if code else "")
    return code


def _show_table(opened: OpenStudy, request: StudyRequest, screen: Screen) -> ExitStatus:
    """Print the comparison of the cells that are done. Writes nothing."""
    manifest = manifest_of(opened.place, opened.grid)
    table = table_of(opened.place, opened.grid, manifest)
    if request.json:
        print(json.dumps(msgspec.to_builtins(table), indent=2))
    else:
        show_table(screen.console, table)
    return ExitStatus.IN_PROGRESS if table.missing else ExitStatus.DONE


def _show_dry_run(opened: OpenStudy, request: StudyRequest, screen: Screen) -> ExitStatus:
    """Print the plan and what stands in the way of cells. Writes nothing."""
    place, grid, where = opened.place, opened.grid, request.where
    first = grid.cells[0]
    launcher = launcher_of(first.recipe, where, place, first.name)
    limit = limit_of(grid.study.limit, launcher, os.cpu_count() or 1)
    alone = {cell.name: estimate_of(cell, place, where, grid.study.keep) for cell in grid.cells}
    # Equal tokens take about as long as those of the cell that they are equal to.
    estimates = {
        cell.name: replace(alone[cell.name], gpu_seconds=alone[cell.needs[0]].gpu_seconds)
        if cell.needs and cell.recipe.baseline.budget is not None
        else alone[cell.name]
        for cell in grid.cells
    }
    done = [cell.name for cell in manifest_of(place, grid).cells if cell.state == "done"]
    estimates |= {name: replace(estimates[name], gpu_seconds=0.0) for name in done}
    problems = _problems(grid, place)
    jobs_of(grid, place, where)
    show_plan(
        screen.console,
        grid,
        estimates,
        [disk_of_pool(pool) for pool in grid.pools],
        launcher.where,
        limit,
        problems,
    )
    if done:
        screen.say(f"{len(done)} of {len(grid.cells)} cells are done; they take no GPU time any more")
    if problems:
        raise SpartaError(
            f"dry run: {len(problems)} of {len(grid.cells)} cells could not begin now, as said above; nothing was started"
        )
    screen.say("Dry run: every cell passed all checks; nothing was started.")
    return ExitStatus.DONE


def _problems(grid: Grid, place: StudyDir) -> Mapping[str, str]:
    """By cell, why its run could not begin now. Each pool, data set and method is checked once."""
    found, checked = dict[str, str](), dict[str, str]()
    for cell in grid.cells:
        key = cell.recipe.model_copy(update={"name": "", "seed": 0}).model_dump_json()
        if key not in checked:
            checked[key] = _problem(_with_members(cell, grid, place), cell.name, place)
        if checked[key]:
            found[cell.name] = checked[key]
    return found


def _problem(recipe: Recipe, name: str, place: StudyDir) -> str:
    if present(place.cell(name).run_json):
        return ""
    try:
        prepare_begin(place.cell(name), _settled(recipe, place))
    except SpartaError as error:
        return str(error)
    return ""


def _with_members(cell: Cell, grid: Grid, place: StudyDir) -> Recipe:
    """The recipe of `cell`, with the data of experts that the run of its initial pool has not trained yet."""
    made = [Path(model.adapter) for model in cell.recipe.pool.models if model.adapter is not None]
    if all(path.exists() or not path.is_relative_to(place.root) for path in made):
        return cell.recipe
    [pool] = (pool.recipe.pool for pool in grid.pools if pool.name == cell.pool)
    return cell.recipe.model_copy(
        update={"pool": pool.model_copy(update={"derived": cell.recipe.pool.derived})}
    )


def _settled(recipe: Recipe, place: StudyDir) -> Recipe:
    """`recipe` with what it takes from runs outside the study; for what it will take from inside, the first members and the recipe's own prompts."""
    derived, budget = recipe.pool.derived, recipe.baseline.budget
    if derived is not None and derived.scores is not None and not _is_inside(derived.scores, place):
        recipe = resolved(recipe)
    recipe = derive(recipe, [model.name for model in recipe.pool.models])
    if budget is None or not _is_inside(budget.like, place):
        return budgeted(recipe)
    return recipe.model_copy(update={"baseline": recipe.baseline.model_copy(update={"budget": None})})


def _is_inside(path: str, place: StudyDir) -> bool:
    return Path(path).is_relative_to(place.root)


def _cancel(opened: OpenStudy, screen: Screen) -> None:
    """End the driver, the running cells and their tasks; finished work stays."""
    place, grid = opened.place, opened.grid
    end_drivers(place.lock, screen.say)
    now = holder(place.lock)
    names = [*(pool.name for pool in grid.pools), *(cell.name for cell in grid.cells)]
    if now is not None and now.alive:
        raise SpartaError(
            f"{place.root} is being driven by {now.claim}: stop it there (Ctrl-C, or kill {now.claim.pid}), which stops its cells too; then "
            "--cancel ends what is left in the queue"
        )
    count = end_cells(place, names).here
    ended, refused = 0, dict[str, str]()
    for name in names:
        try:
            ended += _cancel_cell(place, name, screen)
        except SpartaError as error:
            refused[name] = str(error)
    screen.say(f"Stopped {count} running cells and ended {ended} of their tasks; finished work stays.")
    if refused:
        shown = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise SpartaError(
            f"{len(refused)} of {len(names)} cells could not be cancelled, all others were; run --cancel again once this is mended: {shown}"
        )


def _cancel_cell(place: StudyDir, name: str, screen: Screen) -> int:
    """End the tasks of a cell whose process has stopped, then remove the note of that process. Returns how many tasks there were."""
    state, ended = place.cell(name), 0
    if present(state.run_json):
        with RunLock(state, screen.say):
            ended = cancel_all(Run.open(state))
    if process_of(place, name) is not None:
        raise SpartaError(f"its process has not stopped yet, see {place.process(name)}: stop it there")
    files.remove(place.process(name))
    return ended


def _fetch(opened: OpenStudy, screen: Screen) -> None:
    """Download the models and data sets of the hub that cells name, each once."""
    fetched = set[Path]()
    for cell in opened.grid.cells:
        named = {wanted.folder for wanted in wanted_by(cell.recipe)}
        if not fetched.issuperset(named):
            fetch(cell.recipe, False, screen)
            fetched.update(named)
    if not fetched:
        screen.say("The study names no model and no data set of the hub; nothing to fetch.")
