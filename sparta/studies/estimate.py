"""What a study will take, before it begins: GPU-hours by the rates that recipes assume, GPUs that a cell needs at least, disk for adapters."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sparta.chat.template import Message
from sparta.cluster.gpus import visible_gpus
from sparta.cluster.launcher import Launcher
from sparta.cluster.registry import launcher_for, settings_for
from sparta.cluster.slurm.launcher import Slurm
from sparta.errors import SpartaError
from sparta.evaluation.derived_pool import derive
from sparta.methods.registry import method_of, phases_of
from sparta.names import ClusterKind
from sparta.pool.gpu_memory import adapter_bytes
from sparta.pool.members import locate
from sparta.recipes.data import Data
from sparta.recipes.load import adjust
from sparta.recipes.pool import Model
from sparta.recipes.schema import Recipe
from sparta.status.forecast import forecasts
from sparta.store.layout import StateDir
from sparta.store.records import Instruction
from sparta.store.run import Run
from sparta.studies.grid import Cell
from sparta.studies.initial_pool import InitialPool
from sparta.studies.layout import StudyDir
from sparta.studies.study_file import Keep
from sparta.tasks.registry import task_named

USUAL_PROMPT = "x" * 400
"""Stands for the instructions of a task whose data are not prepared: about a hundred tokens."""


@dataclass(frozen=True)
class Where:
    """Where cells run: --cluster and --profile of the command."""

    cluster: ClusterKind | None = None
    profile: str | None = None

    def placed(self, recipe: Recipe) -> Recipe:
        """`recipe` as it is run there. Raises SpartaError where the profile is not usable."""
        settings = settings_for(self.cluster, self.profile)
        return adjust(recipe, settings) if settings else recipe

    @property
    def options(self) -> list[str]:
        """The options of a command line that say so."""
        given = (("--cluster", self.cluster), ("--profile", self.profile))
        return [word for name, value in given if value is not None for word in (name, value)]


@dataclass(frozen=True)
class CellEstimate:
    """What one cell takes. gpu_seconds: of its iterations, without scoring. disk: bytes of its adapters, without the initial pool; None if the
    models are not there to be measured.
    """

    gpu_seconds: float
    disk: int | None


def estimate_of(cell: Cell, place: StudyDir, where: Where, keep: Keep) -> CellEstimate:
    """The estimate for a cell that has not begun. Where the pool is derived by scores, any members stand for the chosen ones."""
    recipe = _with_some_pool(where.placed(cell.recipe))
    run = planned(recipe, place.cell(cell.name))
    launcher = launcher_for(run)
    gpu = sum(
        forecast.busy for forecast in forecasts(run, launcher, 1) if forecast.phase.runs_on(recipe) == "gpu"
    )
    learners = len(method_of(recipe).learners(run, 1))
    pools = {"all": recipe.iterations, "last": 2, "chosen": 1}[keep]
    each = bytes_of_adapter(recipe)
    return CellEstimate(gpu * recipe.iterations, None if each is None else round(each * learners * pools))


def bytes_of_adapter(recipe: Recipe) -> float | None:
    """Mean bytes of an adapter of the pool; None if the models are not there to be measured. Asks no network."""
    try:
        if not all(Path(_measured(recipe, model)).is_dir() for model in recipe.pool.models):
            return None
        return adapter_bytes(recipe) / len(recipe.pool.models)
    except (SpartaError, OSError):
        return None


def _measured(recipe: Recipe, model: Model) -> str:
    """The folder from which the shapes of the adapter of `model` are read: its own, or that of its base."""
    original = recipe.pool.original(model)
    return locate(original.adapter or recipe.pool.base_of(model), recipe.pool.folder)


def disk_of_pool(pool: InitialPool) -> int | None:
    """Bytes of the adapters of an initial pool; None if the models are not there to be measured."""
    each = bytes_of_adapter(pool.recipe)
    return None if each is None else round(each * len(pool.recipe.pool.models))


def gpus_needed(recipe: Recipe, where: Where, place: StudyDir, name: str) -> int:
    """The GPUs of the widest task of a run, at least 1: what it needs to run at all."""
    placed = _with_some_pool(where.placed(recipe))
    run = planned(placed, place.cell(name))
    launcher, phases = launcher_for(run), (*phases_of(placed, 0), *phases_of(placed, 1))
    if isinstance(launcher, Slurm):
        return max(1, *(launcher.resources(phase).gpus for phase in phases))
    return max(1, *(phase.gpus(placed) for phase in phases))


def limit_of(study_limit: int | None, launcher: Launcher, cores: int) -> int:
    """The GPUs (without GPUs: cores) that all running cells use together."""
    if study_limit is not None:
        return study_limit
    if isinstance(launcher, Slurm):
        return launcher.profile.width
    return len(visible_gpus()) or max(1, cores // 2)


def planned(recipe: Recipe, state: StateDir) -> Run:
    """The run that `recipe` will be in `state`, for estimates: nothing of it is on disk, and neither models nor data need be there."""
    run = Run(state, recipe, Run.describe(recipe))
    run.instructions = list(_instructions(recipe.data))
    return run


def _instructions(data: Data) -> tuple[Instruction, ...]:
    """The instructions of `data`; one of usual length where they are not prepared."""
    return _instructions_of(data.model_dump_json())


@cache
def _instructions_of(data_json: str) -> tuple[Instruction, ...]:
    data = Data.model_validate_json(data_json)
    try:
        task = task_named(data.task or "own", data)
        items = task.items("train", data)[: data.size]
        return tuple(Instruction(item.item_id, task.in_combat(item).messages) for item in items)
    except SpartaError:
        return (Instruction("usual", (Message("user", USUAL_PROMPT),)),)


def launcher_of(recipe: Recipe, where: Where, place: StudyDir, name: str) -> Launcher:
    """The launcher that a cell will have."""
    return launcher_for(planned(where.placed(recipe), place.cell(name)))


def _with_some_pool(recipe: Recipe) -> Recipe:
    names: Sequence[str] = [model.name for model in recipe.pool.models]
    return derive(recipe, names)
