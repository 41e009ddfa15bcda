"""How a run begins or goes on; resume.py has the ways back. Nothing is ever deleted, only set aside."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sparta.engines.factory import check_engine
from sparta.errors import SpartaError
from sparta.evaluation.holdout_log import accesses_so_far, holdout_log_file, seal_file
from sparta.methods.registry import method_of
from sparta.names import quoted
from sparta.phases.init_pool import InitPool
from sparta.pool.checks import check_pool, check_prompts
from sparta.pool.expert_data import gather_sft_data
from sparta.pool.members import references
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.disk import present
from sparta.store.guard import require_ours
from sparta.store.layout import StateAfter, StateDir
from sparta.store.manifest import verify
from sparta.store.records import Instruction
from sparta.store.run import Run, refuse_lost_run
from sparta.store.temporaries import is_temporary
from sparta.tasks.base import Item
from sparta.tasks.registry import task_named


def gather(recipe: Recipe) -> list[Instruction]:
    """The instructions that `recipe` names.

    Raises SpartaError naming file and line, where there are none, and where a chat template of the pool would not show one whole.
    """
    data = recipe.data
    task = task_named(data.task or "own", data)
    items = task.items("train", data)[: data.size]
    if not items:
        raise SpartaError(f"{data.task or data.train} has no instructions: at least one is needed")
    instructions = [Instruction(item.item_id, task.in_combat(item).messages) for item in items]
    check_prompts(recipe, ((row.prompt_id, row.messages) for row in instructions))
    return instructions


class Opening(ABC):
    """How a launch comes to its run. Everything that can be refused has been when there is one, and nothing is written before `carry_out`."""

    run: Run
    """The run as it is going to be, for plans, estimates and launchers to look at."""

    @property
    def first(self) -> int:
        """The first iteration that is left to be made."""
        return self.run.state.next_iteration()

    @abstractmethod
    def carry_out(self, say: Callable[[str], None]) -> Run:
        """The run, written as far as it is not there yet. For the holder of its lock."""


@dataclass(frozen=True)
class Beginning(Opening):
    """A run that is not there yet, in the folder `state`. Its instructions and its experts' data are read already."""

    run: Run
    state: StateDir
    gold: Sequence[Item] = ()

    @property
    def first(self) -> int:
        return 0 if self.run.recipe.pool.experts else 1

    def carry_out(self, say: Callable[[str], None]) -> Run:
        """The run with its initial pool committed as iteration 0, unless experts are to be trained from data: then that is for the driver."""
        state, run = self.state, Run(self.state, self.run.recipe, self.run.info)
        _set_pool_aside(state, say)
        run.freeze()
        files.write_rows(state.instructions, self.run.instructions)
        run.info = msgspec.structs.replace(
            run.info, instructions_sha256=files.sha256_file(state.instructions)
        )
        if self.gold:
            files.write_rows(state.gold, self.gold)
            run.info = msgspec.structs.replace(run.info, gold_sha256=files.sha256_file(state.gold))
        if self.run.sft_data:
            files.write_json(state.sft_data, self.run.sft_data)
            run.info = msgspec.structs.replace(run.info, lessons_sha256=files.sha256_file(state.sft_data))
        else:
            InitPool().execute(run, 0)
        run.save()
        return run


def prepare_begin(state: StateDir, recipe: Recipe) -> Beginning:
    """A run of `recipe` in `state`, where there is none. Raises SpartaError where the folder is not free, or pool or instructions are unusable."""
    refuse_lost_run(state)
    if occupied(state, upto=0):
        raise SpartaError(f"{state.root} is not empty and holds no run: choose another --state or empty it")
    _check(recipe)
    run = Run(StateAfter(state.root, state, upto=-1), recipe, Run.describe(recipe))
    run.instructions, run.sft_data = gather(recipe), gather_sft_data(recipe)
    return Beginning(run, state, method_of(recipe).gold(recipe))


@dataclass(frozen=True)
class Continuation(Opening):
    """A run that is there and goes on. frozen: as it was opened, with the recipe that it has had so far."""

    run: Run
    frozen: Run

    def carry_out(self, say: Callable[[str], None]) -> Run:
        self.frozen.refreeze(self.run.recipe)
        return self.frozen


def prepare_continue(run: Run, recipe: Recipe | None) -> Continuation:
    """`run`, which goes on with `recipe` (None: as it is).

    Raises SpartaError where the recipe differs from the frozen one in anything that could change a result (the difference is shown), or where
    the state was edited.
    """
    require_same_recipe(run, recipe)
    check_state(run)
    last = run.state.last_committed()
    if recipe is not None and last is not None:
        check_changes(run, recipe, last)
    return Continuation(Run(run.state, recipe or run.recipe, run.info), run)


def check_changes(run: Run, recipe: Recipe, t: int) -> None:
    """What `recipe` has otherwise than `run` must be usable, as for a run that begins; its members are those of iteration t."""
    if (recipe.evaluation, recipe.data) != (run.recipe.evaluation, run.recipe.data):
        _check_evaluation(recipe)
    engine = recipe.engine
    before = (run.recipe.engine, run.recipe.judging, run.recipe.chat)
    if engine.kind != "scripted" and (engine, recipe.judging, recipe.chat) != before:
        members = list(references(run, t).values())
        check_engine(
            engine, members, recipe.judging, recipe.pool.trust_remote_code, recipe.chat.options(run.day)
        )


def _check(recipe: Recipe) -> None:
    """What a recipe names must be there before anything is written."""
    assert recipe.pool.derived is None, "a derived pool is resolved where its recipe is loaded"
    method_of(recipe).check(recipe)
    check_pool(recipe)
    _check_evaluation(recipe)


def _check_evaluation(recipe: Recipe) -> None:
    """The validation items that a recipe names, and its own test items, must be there."""
    data = recipe.data
    for name in recipe.evaluation.tasks:
        task_named(name, data).items("validation", data)
    if data.validation is not None:
        own = task_named("own", data)
        for split in ("validation", "test") if data.test else ("validation",):
            own.items(split, data)


def check_state(run: Run, upto: int | None = None) -> None:
    """Raises SpartaError naming the first file of the committed state, or of that up to iteration `upto`, that is missing or was changed."""
    for path, digest in (
        (run.state.instructions, run.info.instructions_sha256),
        *([(run.state.sft_data, run.info.lessons_sha256)] if run.info.lessons_sha256 else []),
        *([(run.state.gold, run.info.gold_sha256)] if run.info.gold_sha256 else []),
    ):
        if not present(path) or files.sha256_file(path) != digest:
            raise SpartaError(
                f"{path} is missing or was changed since the run began: restore it, or begin anew with another --state"
            )
    require_frozen_recipe(run)
    _require_founded(run)
    verify_chain(run, upto)
    accesses_so_far(run.state)


def verify_chain(run: Run, upto: int | None = None) -> None:
    """Check the committed iterations of `run`, or those up to `upto`; see `sparta.store.manifest.verify`."""
    verify(run.state, run.info.genesis, upto, method_of(run.recipe).row_types(run))


def scored_paths(state: StateDir) -> list[Path]:
    """What lies in evals/, but for the looks at test splits: what has been seen of one stays seen, whatever becomes of the checkpoint.

    Also but for what writers that were killed have left.
    """
    if not state.evals.is_dir():
        return []
    found = (path for path in state.evals.iterdir() if not is_temporary(path.name))
    return sorted(path for path in found if path != holdout_log_file(state))


def occupied(state: StateDir, upto: int) -> bool:
    """Whether something is in the folder that is neither a run of its own, nor data and models it uses, nor left by a launch that was killed early.

    A launch that was killed before there was a run leaves iterations up to `upto`, and a fork its parent's looks at test splits.
    """
    left = {
        "jobs",
        "README.md",
        "recipe.yaml",
        "data",
        "datasets",
        "models",
        "superseded",
        seal_file(state).name,
        *(state.iteration(n).root.name for n in range(upto + 1)),
    }
    return state.root.exists() and any(
        path.name not in left
        and not is_temporary(path.name)
        and not (path / "run.json").is_file()
        and not (path == state.evals and scored_paths(state) == [])
        for path in state.root.iterdir()
    )


def require_frozen_recipe(run: Run) -> None:
    """Raises SpartaError where recipe.yaml no longer says what the run began with."""
    if run.recipe.hash != run.info.recipe_hash:
        raise SpartaError(
            f"{run.state.recipe_yaml} was changed since the run began: restore it, or begin anew with another --state"
        )


def _require_founded(run: Run) -> None:
    """Raises SpartaError where the initial pool was there and is gone: one that is made anew may be another than that which later rows are from."""
    zero = run.iteration(0)
    was_there = not run.recipe.pool.experts or max(run.state.iterations(), default=0) > 0
    if was_there and not present(zero.manifest):
        raise SpartaError(
            f"{zero.root} is missing or has no {zero.manifest.name}, and it is what the run began with: restore it from a copy, or begin anew "
            "with another --state"
        )


def require_same_recipe(run: Run, recipe: Recipe | None) -> None:
    """Raises SpartaError showing the difference where `recipe` would not continue `run` but compute something else."""
    require_frozen_recipe(run)
    differences = run.recipe.differences(recipe) if recipe is not None else []
    if differences:
        shown = "\n".join(f"  {line}" for line in differences)
        last = run.state.last_committed()
        remedy = (
            "undo the difference, or choose another --state"
            if last is None
            else f"undo the difference, choose another --state, or branch with {quoted('--resume', run.iteration(last).root)} --fork DIR"
        )
        raise SpartaError(f"{run.state.root} was begun with another recipe; {remedy}:\n{shown}")


def _set_pool_aside(state: StateDir, say: Callable[[str], None]) -> None:
    """An initial pool without a run: of a launch that was killed before there was one, or of a run whose run.json was lost; nobody can tell."""
    pool = state.iteration(0).root
    if pool.exists():
        whole = (state.recipe_yaml, state.instructions, state.sft_data, state.gold, pool)
        aside = set_aside(state, [path for path in whole if path.exists()])
        say(
            f"{pool} was there without a run.json and is set aside in {aside}, and what went with it: if a run was lost here, move all of it back "
            "and restore run.json from a copy"
        )


def set_aside(state: StateDir, paths: Iterable[Path]) -> Path:
    """Move `paths` of the state, in this order, into a new folder below superseded/, and return that."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    number = 0
    while (folder := state.superseded / f"{stamp}-{number}").exists():
        number += 1
    with files.os_errors_named(folder):
        folder.mkdir(parents=True)
        for path in paths:
            target = folder / path.relative_to(state.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            require_ours(path)
            path.rename(target)
    return folder
