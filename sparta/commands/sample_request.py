"""What a person requests of sampled answers, and the plan it comes to. Requests that cannot be met are refused before anything starts."""

from dataclasses import dataclass
from pathlib import Path

from sparta.commands.evaluate_request import requested_tasks, require_items
from sparta.errors import SpartaError
from sparta.evaluation.answer import checkpoints
from sparta.evaluation.sample_sets import is_of_pool
from sparta.names import DEFAULT_STATE, ClusterKind, quoted, suggested
from sparta.phases.base import SampleSettings
from sparta.recipes.engine import HOTTEST
from sparta.store.layout import parse_checkpoint
from sparta.store.run import Run
from sparta.tasks.registry import task_named


@dataclass(frozen=True)
class SampleRequest:
    """What a person typed. None: not given.

    tasks: comma-separated names. samples: answers of each checkpoint to each item. temperature: None: that of combats. items: only the first ones.
    every: all pools, not only the first and the last. checkpoints: comma-separated iterations and checkpoints instead. graded: have the evaluation's
    judge grade the sets. cluster, profile: where this runs.
    """

    state: Path = DEFAULT_STATE
    tasks: str | None = None
    samples: int = 10
    temperature: float | None = None
    items: int | None = None
    every: bool = False
    checkpoints: str | None = None
    graded: bool = False
    cluster: ClusterKind | None = None
    profile: str | None = None


@dataclass(frozen=True)
class SamplePlan:
    """What will be sampled. entries: iterations and checkpoints. names: the checkpoints that these are."""

    tasks: tuple[str, ...]
    entries: tuple[str, ...]
    names: tuple[str, ...]
    settings: SampleSettings


def plan_samples(run: Run, request: SampleRequest) -> SamplePlan:
    """The plan of `request` for `run`.

    Raises SpartaError where a task or a checkpoint is unknown, the validation split is missing, or the answers would make no set of two.
    """
    committed = run.state.committed()
    if not committed:
        raise SpartaError(
            f"{run.state.root} has no pool to sample from yet: make it with {suggested('launch', '--state', run.state.root)}"
        )
    tasks = tuple(requested_tasks(run, request.tasks))
    for name in tasks:
        require_items(run, task_named(name, run.recipe.data), "validation")
    iterations = committed if request.every else sorted({committed[0], committed[-1]})
    entries = tuple(run.iteration(t).root.name for t in iterations)
    if request.checkpoints is not None:
        entries = tuple(
            dict.fromkeys(name for name in map(str.strip, request.checkpoints.split(",")) if name)
        )
        _require_committed(run, entries, committed)
    names = tuple(checkpoints(run, entries))
    if request.items is not None and request.items < 1:
        raise SpartaError(
            f"{quoted('--items', request.items)} asks for no item: give at least 1, or leave it out for all"
        )
    return SamplePlan(tasks, entries, names, _settings(run, request, entries))


def _require_committed(run: Run, entries: tuple[str, ...], committed: list[int]) -> None:
    if not entries:
        raise SpartaError(
            "--checkpoints names none: give names separated by commas, as in --checkpoints iter_00,iter_08-adder"
        )
    for entry in entries:
        if parse_checkpoint(entry)[0] not in committed:
            known = ", ".join(run.iteration(t).root.name for t in committed)
            raise SpartaError(
                f"{entry} is of an iteration that {run.state.root} does not have: it has {known}"
            )


def _settings(run: Run, request: SampleRequest, entries: tuple[str, ...]) -> SampleSettings:
    """How answers are sampled. Raises SpartaError for settings whose answers would be equal, or make no set."""
    given = run.recipe.generation
    temperature = given.temperature if request.temperature is None else request.temperature
    if not 0 < temperature <= HOTTEST:
        raise SpartaError(
            f"a temperature of {temperature:g} cannot be sampled with: give --temperature above 0 (at 0 all samples are equal) and at most {HOTTEST:g}"
        )
    if request.samples < 1:
        raise SpartaError(f"{quoted('--samples', request.samples)} asks for no answer: give at least 1")
    alone = [
        entry for entry in entries if not is_of_pool(entry) or len(run.pool(parse_checkpoint(entry)[0])) < 2
    ]
    if request.samples < 2 and alone:
        raise SpartaError(
            f"one sample of {alone[0]} makes no set of answers that could differ: give --samples 2 or more, or name whole pools"
        )
    return SampleSettings(request.samples, temperature, given.top_p, given.top_k, request.items)
