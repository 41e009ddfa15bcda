"""study.json: the cells of a study, where each stands, and what its models were chosen and scored at.

The state directories of the cells are the truth about their runs, results/ about how they ended; study.json puts both together for people and
for analysis. It is written by the driver alone, which holds the study's lock.
"""

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec

from sparta.errors import SpartaError
from sparta.evaluation.summary import CheckpointChoice
from sparta.recipes.identity import identity_of
from sparta.recipes.load import thaw
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.disk import present
from sparta.store.lock import holder
from sparta.store.process import ProcessId, lives, machine
from sparta.store.records import SCHEMA_VERSION
from sparta.store.stats import TokenCounts
from sparta.studies.grid import Grid
from sparta.studies.layout import POOLS, StudyDir, is_pool
from sparta.studies.study_file import Study

CellState = Literal["waiting", "running", "done", "failed"]


class CellResult(msgspec.Struct, frozen=True):
    """results/NAME.json: how a cell ended. asked: see `request_of`. error: why it failed; empty where it is done.

    choices: by task. tokens, gpu_seconds: of its iterations. task_seconds: of all their tasks, on GPUs or not.
    """

    asked: str
    error: str = ""
    choices: dict[str, list[CheckpointChoice]] = {}
    tokens: TokenCounts = TokenCounts()
    gpu_seconds: float = 0.0
    task_seconds: float = 0.0


class CellProcess(msgspec.Struct, frozen=True):
    """running/NAME.json: the process that works on a cell. share: how many GPUs (or cores) it has; gpus: which, as in CUDA_VISIBLE_DEVICES."""

    process: ProcessId
    share: int
    gpus: tuple[str, ...] = ()


class CellEntry(msgspec.Struct, frozen=True):
    """One cell in study.json. state_dir: relative to the study. pool: of the run that made its initial pool."""

    name: str
    levels: dict[str, str]
    state_dir: str
    recipe_hash: str
    method: str
    seed: int
    budget: str
    state: CellState = "waiting"
    pool: str | None = None
    needs: list[str] = []
    result: CellResult | None = None


class StudyManifest(msgspec.Struct, frozen=True):
    """study.json. study_sha256: of study.yaml. source: the file that it was read from, where relative paths start. reference: the axis that is compared, and its level that the others are compared with."""

    schema_version: int
    name: str
    study_sha256: str
    source: str
    limit: int | None
    keep: str
    axes: dict[str, list[str]]
    reference: tuple[str, str]
    pools: list[CellEntry]
    cells: list[CellEntry]


def request_of(recipe: Recipe, study: Study) -> str:
    """A digest of everything that a cell is to do: a cell is done if its last result was for the same.

    Keys with their default are left out, so that a key added by a later version changes nothing.
    """
    scoring = json.dumps(identity_of(recipe.evaluation, defaults=False), sort_keys=True)
    on = [study.compare_on] if study.compare_on != "test" else []
    parts = (_unplaced(recipe).hash, str(recipe.iterations), scoring, study.keep, study.choose_on, *on)
    what = "\n".join(parts)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def result_of(place: StudyDir, name: str) -> CellResult | None:
    """How the cell ended the last time; None if it never did."""
    path = place.result(name)
    return (
        files.read_json(path, CellResult, "remove it; the cell is then looked at again")
        if present(path)
        else None
    )


def process_of(place: StudyDir, name: str) -> CellProcess | None:
    """The live process that works on the cell, if any."""
    found = files.read_measured(place.process(name), CellProcess)
    if found is None or lives(found.process):
        return found
    # Of a process of another machine only the heartbeat of the lock that it holds is known.
    now = holder(place.cell(name)) if found.process.machine != machine() else None
    return found if now is not None and now.alive else None


def state_of(place: StudyDir, name: str, asked: str) -> tuple[CellState, CellResult | None]:
    """Where a cell stands, and its last result. asked: what it is to do, see `request_of`; a cell that did something else is waiting."""
    result = result_of(place, name)
    if process_of(place, name) is not None:
        return "running", result
    if result is None:
        return "waiting", None
    if result.error:
        return "failed", result
    return ("done" if result.asked == asked else "waiting"), result


def manifest_of(place: StudyDir, grid: Grid) -> StudyManifest:
    """The manifest of a study as it stands now; read from the folder, and written by nobody else."""
    study = grid.study

    def entry(
        name: str, recipe: Recipe, levels: dict[str, str], pool: str | None, needs: list[str]
    ) -> CellEntry:
        state, result = state_of(place, name, request_of(recipe, study))
        like = recipe.baseline.budget
        return CellEntry(
            name=name,
            levels=levels,
            state_dir=str(place.cell(name).root.relative_to(place.root)),
            recipe_hash=recipe.hash,
            method=recipe.method,
            seed=recipe.seed,
            budget="the paper's" if like is None else f"tokens of {like.like.rpartition('/')[2]}",
            state=state,
            pool=pool,
            needs=needs,
            result=result,
        )

    return StudyManifest(
        schema_version=SCHEMA_VERSION,
        name=study.name,
        study_sha256=files.sha256_file(place.study_yaml) if present(place.study_yaml) else "",
        source=str(grid.source),
        limit=study.limit,
        keep=study.keep,
        axes={axis: list(dict.fromkeys(cell.levels[axis] for cell in grid.cells)) for axis in study.axes},
        reference=grid.reference,
        pools=[entry(pool.name, pool.recipe, {}, None, []) for pool in grid.pools],
        cells=[
            entry(cell.name, cell.recipe, dict(cell.levels), cell.pool, list(cell.needs))
            for cell in grid.cells
        ],
    )


def read_manifest(place: StudyDir) -> StudyManifest:
    """study.json. Raises SpartaError where it is missing, damaged or of another schema version."""
    found = files.read_json(place.manifest, StudyManifest, "run the study again, which writes it")
    if found.schema_version != SCHEMA_VERSION:
        raise SpartaError(
            f"{place.manifest} has schema version {found.schema_version}, this code reads version {SCHEMA_VERSION}: use the release that wrote it"
        )
    return found


def freeze(place: StudyDir, grid: Grid, text: bytes) -> None:
    """Write the study file and the recipes of all cells. Raises SpartaError, before anything is written, for a change that a begun study refuses."""
    _require_changeable(place, grid)
    runs = [
        *((pool.name, pool.recipe) for pool in grid.pools),
        *((cell.name, cell.recipe) for cell in grid.cells),
    ]
    for name, recipe in runs:
        files.write_bytes(place.recipe(name), recipe.to_yaml().encode())
    files.write_bytes(place.study_yaml, text)


def _require_changeable(place: StudyDir, grid: Grid) -> None:
    """A begun study may get another limit, keep, more levels and more iterations; a begun cell keeps its settings."""
    now = {cell.name: cell.recipe for cell in grid.cells}
    if not present(place.manifest):
        return
    for before in read_manifest(place).cells:
        begun = present(place.cell(before.name).run_json)
        if before.name not in now:
            if begun:
                raise SpartaError(
                    f"the study in {place.root} began the cell {before.name}, which is no longer in its file: put its levels back, or run the changed file "
                    "with another --state"
                )
            continue
        then = thaw(place.recipe(before.name)) if begun else now[before.name]
        recipe = now[before.name]
        if differences := _unplaced(then).differences(_unplaced(recipe)):
            shown = "\n".join(f"  {line}" for line in differences)
            raise SpartaError(
                f"the study in {place.root} began the cell {before.name} with other settings; undo the difference, give the changed cell another level, "
                f"or run the changed file with another --state (limit, keep, more levels and more iterations may change):\n{shown}"
            )
        if recipe.iterations < then.iterations:
            raise SpartaError(
                f"the study in {place.root} began the cell {before.name} with {then.iterations} iterations, now {recipe.iterations}: iterations can only grow"
            )


def _unplaced(recipe: Recipe) -> Recipe:
    """`recipe` without the place of the study's folder, which may move: the scores that derive its pool, the experts of its initial pool."""
    models = tuple(
        model.model_copy(update={"adapter": _below_study(model.adapter)}) if model.adapter else model
        for model in recipe.pool.models
    )
    updates: dict[str, Any] = {"models": models}
    if recipe.pool.derived is not None and recipe.pool.derived.scores is not None:
        updates["derived"] = recipe.pool.derived.model_copy(update={"scores": "scores"})
    return recipe.model_copy(update={"pool": recipe.pool.model_copy(update=updates)})


def _below_study(adapter: str) -> str:
    """The path of an adapter of an initial pool's run, from the study's folder; any other as it is."""
    parts = Path(adapter).parts
    for number, (folder, name) in enumerate(pairwise(parts)):
        if folder == POOLS and is_pool(name):
            return "/".join(parts[number:])
    return adapter
