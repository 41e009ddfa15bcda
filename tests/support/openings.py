"""Opens runs without a launch and without a lock: start, continue, roll back, branch."""

from sparta.commands.begin import prepare_begin, prepare_continue
from sparta.commands.resume import is_fork_of, prepare_fork, prepare_resume
from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir
from sparta.store.run import Run


def planned(state: StateDir, recipe: Recipe) -> Run:
    """The run that `recipe` would start in `state`, as in a dry run."""
    return prepare_begin(state, recipe).run


def begin_or_continue(state: StateDir, recipe: Recipe | None) -> Run:
    """The run in `state`: started with `recipe` if there is none, else continued (None: with its own recipe)."""
    if state.run_json.is_file():
        return prepare_continue(Run.open(state), recipe).carry_out(print)
    assert recipe is not None, "a run begins with a recipe"
    return prepare_begin(state, recipe).carry_out(print)


def go_back(state: StateDir, t: int) -> Run:
    """The run in `state`, rolled back to the end of iteration t."""
    return prepare_resume(Run.open(state), t, None).carry_out(print)


def fork(source: StateDir, t: int, target: StateDir, recipe: Recipe | None) -> Run:
    """The fork in `target` of the run in `source` after iteration t; continued if it exists."""
    parent = Run.open(source)
    if target.run_json.is_file() and is_fork_of(there := Run.open(target), parent, t):
        return prepare_continue(there, recipe or parent.recipe).carry_out(print)
    return prepare_fork(parent, t, target, recipe).carry_out(print)
