"""What a run must have to go on: its own recipe, data, initial pool and log of test-set accesses."""

from collections.abc import Callable, Iterator

from sparta.errors import SpartaError
from sparta.evaluation.holdout_log import accesses_so_far, require_seal
from sparta.store import files
from sparta.store.disk import present
from sparta.store.run import Run


def problems_of_run(run: Run) -> Iterator[SpartaError]:
    """What is wrong with the files that belong to the whole run, one error with its remedy for each."""
    checks: tuple[Callable[[Run], object], ...] = (
        _require_data,
        require_frozen_recipe,
        _require_init_pool,
        _require_access_log,
    )
    for check in checks:
        try:
            check(run)
        except SpartaError as error:
            yield error


def require_frozen_recipe(run: Run) -> None:
    """Raises SpartaError where recipe.yaml was edited after the run began."""
    if not run.recipe.is_hashed_as(run.info.recipe_hash):
        raise SpartaError(
            f"{run.state.recipe_yaml} was changed since the run began: restore it, or start a new run with another --state"
        )


def _require_data(run: Run) -> None:
    state, info = run.state, run.info
    for path, digest in (
        (state.instructions, info.instructions_sha256),
        *([(state.sft_data, info.lessons_sha256)] if info.lessons_sha256 else []),
        *([(state.gold, info.gold_sha256)] if info.gold_sha256 else []),
    ):
        if not present(path) or files.sha256_file(path) != digest:
            raise SpartaError(
                f"{path} is missing or was changed since the run began: restore it, or start a new run with another --state"
            )


def _require_init_pool(run: Run) -> None:
    """Raises SpartaError where the initial pool was lost: a rebuilt one may differ from the one that produced the later rows."""
    zero = run.iteration(0)
    was_there = not run.recipe.pool.experts or max(run.state.iterations(), default=0) > 0
    if was_there and not present(zero.manifest):
        raise SpartaError(
            f"{zero.root}, the run's initial pool, is missing or has no {zero.manifest.name}: restore it from a copy, or start a new run "
            "with another --state"
        )


def _require_access_log(run: Run) -> None:
    if run.info.day:
        # Version 0.1.0 knew neither days nor seals.
        require_seal(run.state)
    accesses_so_far(run.state)
