"""How a launch starts or continues a run; resume.py goes back or branches. Nothing is ever deleted, only set aside."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sparta.engines.factory import check_engine
from sparta.errors import SpartaError
from sparta.evaluation.holdout_log import holdout_log_file, seal_file
from sparta.methods.registry import method_of
from sparta.names import quoted
from sparta.phases.init_pool import InitPool
from sparta.pool.checks import check_pool, check_prompts
from sparta.pool.expert_data import gather_sft_data
from sparta.pool.members import references
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.cleanup import clear_all_abandoned
from sparta.store.guard import require_ours
from sparta.store.layout import StateAfter, StateDir
from sparta.store.manifest import verify
from sparta.store.proved import Proved
from sparta.store.pruned import pruned_file, require_unpruned
from sparta.store.records import Instruction
from sparta.store.run import Run, refuse_lost_run
from sparta.store.temporaries import is_temporary
from sparta.tasks.base import Item
from sparta.tasks.registry import task_named
from sparta.training.adapter_folder import WEIGHTS
from sparta.verify.begun import problems_of_run, require_frozen_recipe


def _silent(note: str) -> None: ...


def gather(recipe: Recipe, say: Callable[[str], None] = _silent) -> list[Instruction]:
    """The instructions that `recipe` names. say: hears how the user's own data was read.

    Raises SpartaError where a line is malformed (naming it), where there is no instruction, and where a chat template of the pool would cut or
    change one.
    """
    data = recipe.data
    task = task_named(data.task or "own", data)
    items = task.items("train", data)[: data.size]
    for note in task.notes:
        say(note)
    if not items:
        raise SpartaError(f"{data.task or data.train} has no instructions: at least one is needed")
    instructions = [Instruction(item.item_id, task.in_combat(item).messages) for item in items]
    check_prompts(recipe, ((row.prompt_id, row.messages) for row in instructions))
    return instructions


class Opening(ABC):
    """How a launch opens its run. Making one runs all checks; nothing is written before `carry_out`."""

    run: Run
    """The run as it will be; plans, estimates and launchers read it."""

    @property
    def first(self) -> int:
        """The first iteration still to run."""
        return self.run.state.next_iteration()

    @abstractmethod
    def carry_out(self, say: Callable[[str], None]) -> Run:
        """Write what is missing of the run and return it. The caller holds its lock."""


@dataclass(frozen=True)
class NewRun(Opening):
    """A new run in the folder `state`. Its instructions and its experts' data are already loaded."""

    run: Run
    state: StateDir
    gold: Sequence[Item] = ()

    @property
    def first(self) -> int:
        return 0 if self.run.recipe.pool.experts else 1

    def carry_out(self, say: Callable[[str], None]) -> Run:
        """Create the run and commit its initial pool as iteration 0; where experts are trained from data, the driver makes the pool."""
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


def prepare_begin(state: StateDir, recipe: Recipe, say: Callable[[str], None] = _silent) -> NewRun:
    """A new run of `recipe` in `state`. say: as for `gather`. Raises SpartaError where the folder is in use, or pool or instructions are unusable."""
    refuse_lost_run(state)
    if occupied(state, upto=0):
        raise SpartaError(f"{state.root} is not empty and holds no run: choose another --state or empty it")
    _check(recipe)
    run = Run(StateAfter(state.root, state, upto=-1), recipe, Run.describe(recipe))
    run.instructions, run.sft_data = gather(recipe, say), gather_sft_data(recipe)
    return NewRun(run, state, method_of(recipe).gold(recipe))


@dataclass(frozen=True)
class Continuation(Opening):
    """An existing run that continues. frozen: the run as opened, with its recipe so far. proved: its files that were checked."""

    run: Run
    frozen: Run
    proved: Proved

    def carry_out(self, say: Callable[[str], None]) -> Run:
        self.proved.save()
        self.frozen.refreeze(self.run.recipe)
        return self.frozen


def prepare_continue(run: Run, recipe: Recipe | None) -> Continuation:
    """Continue `run` with `recipe` (None: its own).

    Raises SpartaError where the recipe differs from the frozen one in anything that could change a result (the message shows the difference),
    or where the state was edited.
    """
    require_same_recipe(run, recipe)
    proved = check_state(run)
    last = run.state.last_committed()
    if last is not None and last < (recipe or run.recipe).iterations:
        require_adapters(run, last)
    if recipe is not None and last is not None:
        check_changes(run, recipe, last)
    return Continuation(Run(run.state, recipe or run.recipe, run.info), run, proved)


def require_adapters(run: Run, t: int) -> None:
    """Raises SpartaError where weights of the pool of iteration t, with which the run goes on, were removed on purpose."""
    weights = [run.state.inside(member.adapter) / WEIGHTS for member in run.pool(t).values()]
    require_unpruned(run.state, weights, f"the iteration after {t}")


def check_changes(run: Run, recipe: Recipe, t: int) -> None:
    """Check what `recipe` changes in `run`, as for a new run; the members are those of iteration t."""
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
    """Check that everything the recipe names exists, before anything is written."""
    assert recipe.pool.derived is None, "a derived pool is resolved where its recipe is loaded"
    method_of(recipe).check(recipe)
    check_pool(recipe)
    _check_evaluation(recipe)


def _check_evaluation(recipe: Recipe) -> None:
    """Check that the recipe's validation items, and its own test items, exist."""
    data = recipe.data
    for name in recipe.evaluation.tasks:
        task_named(name, data).items("validation", data)
    if data.validation is not None:
        own = task_named("own", data)
        for split in ("validation", "test") if data.test else ("validation",):
            own.items(split, data)


def check_state(run: Run, upto: int | None = None) -> Proved:
    """Verify the committed state, up to iteration `upto` if given. Raises SpartaError naming the first file that is missing or was changed.

    Committed files that an earlier check has read, and that were not touched since, are not read again. Returns all that are proved now, to be
    saved by the holder of the lock.
    """
    for problem in problems_of_run(run):
        raise problem
    proved = Proved(run.state)
    verify(run.state, run.info.genesis, upto, method_of(run.recipe).row_types(run), proved)
    return proved


def scored_paths(state: StateDir) -> list[Path]:
    """The contents of evals/, without temporary files and without the log of test-set accesses, which no rollback may undo."""
    if not state.evals.is_dir():
        return []
    found = (path for path in state.evals.iterdir() if not is_temporary(path.name))
    return sorted(path for path in found if path != holdout_log_file(state))


def occupied(state: StateDir, upto: int) -> bool:
    """Whether the folder holds anything that a new run could not share it with.

    Allowed: other runs in subfolders, data, models, and leftovers of a launch that was killed before there was a run: iterations up to `upto`,
    and for a fork its parent's log of test-set accesses.
    """
    allowed = {
        "jobs",
        "README.md",
        "recipe.yaml",
        "data",
        "datasets",
        "models",
        "superseded",
        seal_file(state).name,
        pruned_file(state).name,
        *(state.iteration(n).root.name for n in range(upto + 1)),
    }
    return state.root.exists() and any(
        path.name not in allowed
        and not is_temporary(path.name)
        and not (path / "run.json").is_file()
        and not (path == state.evals and scored_paths(state) == [])
        for path in state.root.iterdir()
    )


def require_same_recipe(run: Run, recipe: Recipe | None) -> None:
    """Raises SpartaError, with the difference, where `recipe` would change the results of `run`."""
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
        raise SpartaError(f"{run.state.root} was started with another recipe; {remedy}:\n{shown}")


def _set_pool_aside(state: StateDir, say: Callable[[str], None]) -> None:
    """Set aside an initial pool that has no run.json: a launch may have been killed early, or run.json was lost, and the two look alike."""
    pool = state.iteration(0).root
    if pool.exists():
        whole = (state.recipe_yaml, state.instructions, state.sft_data, state.gold, pruned_file(state), pool)
        aside = set_aside(state, [path for path in whole if path.exists()])
        say(
            f"{pool} has no run.json; it was set aside in {aside} with the files beside it. If this was a run, move all of it back and restore "
            "run.json from a copy"
        )


def set_aside(state: StateDir, paths: Iterable[Path]) -> Path:
    """Move `paths` of the state, in this order, into a new folder below superseded/, and return that.

    Temporary files of killed writers stay behind: nobody would ever remove them there.
    """
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
            if path.is_dir():
                clear_all_abandoned(path)
            path.rename(target)
    return folder
