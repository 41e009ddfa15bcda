"""A run opened without a launch around it: begun, continued, taken back, branched, at once and with nobody to hold its lock."""

from sparta.commands.begin import prepare_begin, prepare_continue
from sparta.commands.resume import is_fork_of, prepare_fork, prepare_resume
from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir
from sparta.store.run import Run


def planned(state: StateDir, recipe: Recipe) -> Run:
    """The run that `recipe` would begin in `state`, as a dry run sees it."""
    return prepare_begin(state, recipe).run


def begin_or_continue(state: StateDir, recipe: Recipe | None) -> Run:
    """The run in `state`: begun with `recipe` if there is none, else continued (None: with the recipe that it has)."""
    if state.run_json.is_file():
        return prepare_continue(Run.open(state), recipe).carry_out(print)
    assert recipe is not None, "a run begins with a recipe"
    return prepare_begin(state, recipe).carry_out(print)


def go_back(state: StateDir, t: int) -> Run:
    """The run in `state` as it was after iteration t."""
    return prepare_resume(Run.open(state), t, None).carry_out(print)


def fork(source: StateDir, t: int, target: StateDir, recipe: Recipe | None) -> Run:
    """The branch of the run in `source` after iteration t, in `target`; where it is there already, it is continued."""
    parent = Run.open(source)
    if target.run_json.is_file() and is_fork_of(there := Run.open(target), parent, t):
        return prepare_continue(there, recipe or parent.recipe).carry_out(print)
    return prepare_fork(parent, t, target, recipe).carry_out(print)
