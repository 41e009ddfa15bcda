"""Scoring a run's checkpoints: all of them on validation, then a choice, then the chosen ones on the test split.

Only chosen checkpoints answer a test split, and every such access is logged first (evaluation/holdout_log.py).
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from sparta.commands.answers_source import source_of_answers
from sparta.commands.evaluate_request import EvaluateRequest, EvaluationPlan, plan_evaluation
from sparta.commands.phase_driver import PhaseDriver, locked_run
from sparta.errors import SpartaError
from sparta.evaluation.adopted import adopt_answers, adopt_grades
from sparta.evaluation.answer import Evaluate, checkpoint_name, checkpoints
from sparta.evaluation.comparison import other_run
from sparta.evaluation.grade import GradeAnswers
from sparta.evaluation.holdout_log import HoldoutAccess, record_accesses
from sparta.evaluation.items import freeze_items, items_file, items_of
from sparta.evaluation.scores import CheckpointScores, scores
from sparta.evaluation.selection import Mean, best, mean_of, pools
from sparta.evaluation.summary import (
    CheckpointChoice,
    Interval,
    Scale,
    TaskScores,
    format_of_scores,
    merge_into_summary,
)
from sparta.names import suggested
from sparta.screen import Screen
from sparta.store.disk import present
from sparta.store.run import Run
from sparta.store.run_budget import budget_of
from sparta.tasks.base import Split

Entries = Mapping[str, tuple[str, ...]]
"""By task, who answers: iterations (iter_05: its whole pool) or checkpoints (iter_05-adder)."""


class AnswerDriver:
    """Completes the answers and grades of `run`, on the cluster that its recipe names. `still_ours` is called before work is assigned.

    other: a run whose answers and grades are adopted where they would be the same.
    """

    def __init__(
        self, run: Run, screen: Screen, still_ours: Callable[[], None], other: Run | None = None
    ) -> None:
        self._run = run
        self._other = other
        self._say = screen.say
        self.phases = PhaseDriver(run, screen, still_ours)

    def check(self, split: Split, entries: Entries, graded: Entries) -> None:
        """Raises SpartaError where models or judge cannot run, as far as that is known before anything starts."""
        Evaluate(split, entries).check(self._run)
        if graded:
            grade = GradeAnswers(split, graded)
            grade.check(self._run)
            self.phases.check(grade)

    def complete(self, split: Split, entries: Entries, graded: Entries) -> None:
        """Make every missing answer, and the judge's missing grades of `graded`."""
        if self._other is not None and (count := adopt_answers(self._run, self._other, split, entries)):
            self._say(f"adopted {count:,} answers to {split} items from {self._other.state.root}")
        self.phases.complete(Evaluate(split, entries))
        if graded:
            if self._other is not None:
                adopt_grades(self._run, self._other, split, graded)
            self.phases.complete(GradeAnswers(split, graded))

    def is_complete(self, split: Split, entries: Entries, graded: Entries) -> bool:
        """Whether `complete` would find nothing to do."""
        if Evaluate(split, entries).missing(self._run, 0):
            return False
        return not graded or not GradeAnswers(split, graded).missing(self._run, 0)


Means = Mapping[str, Mean]
"""By checkpoint, in the order of iterations and pool."""


def score(request: EvaluateRequest, screen: Screen) -> dict[str, TaskScores]:
    """Score the run as requested, add the scores to its summary and return them by task.

    Raises SpartaError; finished work stays on disk, and the same call continues from there.
    """
    with locked_run(request.state, request.cluster, request.profile, screen) as (run, lock):
        todo = plan_evaluation(run, request)
        others = [
            other_run(request.against, name, todo.chosen_on(name)) for name in todo.tasks if request.against
        ]
        for name in todo.every:
            if left_out := ", ".join(metric.name for metric in todo.left_out(name)):
                screen.say(
                    f"{name}: {left_out} left out: it needs a judge, and the recipe names none (evaluation.judge)"
                )
        source = source_of_answers(run, request.answers_from, screen.say) if request.answers_from else None
        driver = AnswerDriver(run, screen, lock.check, source)
        found = _validated(run, todo, request, driver)
        if request.split != "validation":
            found |= _tested(run, todo, found, driver)
        merge_into_summary(run.state, found)
        driver.phases.say_loads()
        for other in others:
            scored = found[other.task]
            if other.scores.prompt_format != scored.prompt_format:
                screen.say(
                    f"{other.task}: {other.title} used another prompt format or grading ({other.scores.prompt_format}, here {scored.prompt_format})"
                )
            compared = other.compare(run, scored.choices, todo.metrics(other.task), screen.say)
            found[other.task] = msgspec.structs.replace(scored, against=compared)
        merge_into_summary(run.state, found)
        screen.say(f"method {budget_of(run).in_words}")
        return found


def _validated(
    run: Run, todo: EvaluationPlan, request: EvaluateRequest, driver: AnswerDriver
) -> dict[str, TaskScores]:
    """Score every checkpoint on the validation splits used for selection, and choose for every task."""
    pool = tuple(run.iteration(t).root.name for t in todo.iterations)
    entries: Entries = dict.fromkeys(todo.choosing, pool)
    # Only the metric that selection uses: the judge's other grades would be wasted here.
    graded = {name: pool for name in todo.choosing if todo.metrics(name)[0].rubric is not None}
    if request.split == "test":
        _require_validation(run, entries, graded, request, driver)
    for name in todo.choosing:
        freeze_items(run, name, "validation")
    if not driver.is_complete("validation", entries, graded):
        # The test split's requirements too: fail now rather than after an hour of validation.
        driver.check(
            "validation", dict.fromkeys(todo.every, pool), dict.fromkeys(_judged(todo, todo.every), pool)
        )
    driver.complete("validation", entries, graded)
    means = {name: _means(run, name, todo.metrics(name)[0].name, pool) for name in todo.choosing}
    return {name: _chosen(run, todo, name, means, request.every) for name in todo.every}


def _require_validation(
    run: Run, entries: Entries, graded: Entries, request: EvaluateRequest, driver: AnswerDriver
) -> None:
    for name, pool in entries.items():
        frozen = present(items_file(run, name, "validation"))
        grades = {name: pool} if name in graded else {}
        if not frozen or not driver.is_complete("validation", {name: pool}, grades):
            every = ("--all",) if request.every else ()
            raise SpartaError(
                f"checkpoints are chosen on the validation split of {name}, and answers to it are missing: run "
                f"{suggested('evaluate', run.state.root, '--tasks', name, *every, '--split', 'validation')}"
            )


def _means(run: Run, name: str, metric: str, entries: tuple[str, ...]) -> Means:
    found = scores(run, "validation", name, metric, entries)
    return {checkpoint: mean_of(found[checkpoint]) for checkpoint in checkpoints(run, entries)}


def _chosen(run: Run, todo: EvaluationPlan, name: str, means: Mapping[str, Means], every: bool) -> TaskScores:
    """The validation scores of the task `name`, and the checkpoints chosen for it."""
    own, choices = means.get(name, {}), []
    if name in todo.tasks:
        on = todo.chosen_on(name)
        choices = [
            _choice(run, todo, on, what, among, means[on])
            for what, among in pools(todo.iterations, every).items()
        ]
    return TaskScores(
        metrics=_scales(todo, name),
        items={"validation": len(items_of(run, name, "validation"))} if own else {},
        prompt_format=format_of_scores(run, name, judged=bool(_judged(todo, [name]))),
        validation={checkpoint: mean.value for checkpoint, mean in own.items()},
        ungraded={checkpoint: mean.ungraded for checkpoint, mean in own.items()},
        unanswered={checkpoint: mean.unanswered for checkpoint, mean in own.items() if mean.unanswered},
        choices=choices,
    )


def _choice(
    run: Run, todo: EvaluationPlan, on: str, what: str, among: tuple[int, ...], means: Means
) -> CheckpointChoice:
    names = {checkpoint_name(run, t, model) for t in among for model in run.models}
    checkpoint, value = best(on, what, {name: mean for name, mean in means.items() if name in names})
    return CheckpointChoice(what, checkpoint, on, _scales(todo, on)[0], among, value)


def _scales(todo: EvaluationPlan, name: str) -> list[Scale]:
    return [Scale(metric.name, metric.top) for metric in todo.metrics(name)]


def _judged(todo: EvaluationPlan, names: Iterable[str]) -> list[str]:
    """The tasks among `names` that have a metric given by a judge."""
    return [name for name in names if any(metric.rubric for metric in todo.metrics(name))]


def _tested(
    run: Run, todo: EvaluationPlan, found: Mapping[str, TaskScores], driver: AnswerDriver
) -> dict[str, TaskScores]:
    """`found` of the requested tasks, with the test scores of their chosen checkpoints."""
    entries: Entries = {
        name: tuple(sorted({choice.checkpoint for choice in found[name].choices})) for name in todo.tasks
    }
    graded = {name: entries[name] for name in _judged(todo, todo.tasks)}
    for name in todo.tasks:
        freeze_items(run, name, "test")
    if not driver.is_complete("test", entries, graded):
        # A check that fails must not be logged as a test-set access.
        driver.check("test", entries, graded)
    accesses = {name: record_accesses(run.state, _accesses(run, name, found[name])) for name in todo.tasks}
    driver.complete("test", entries, graded)
    tested = {}
    for name in todo.tasks:
        by_metric = {
            metric.name: scores(run, "test", name, metric.name, entries[name])
            for metric in todo.metrics(name)
        }
        tested[name] = msgspec.structs.replace(
            found[name],
            items={**found[name].items, "test": len(items_of(run, name, "test"))},
            accesses=[msgspec.structs.replace(access, time="") for access in accesses[name]],
            choices=[
                msgspec.structs.replace(
                    choice,
                    test={
                        metric: _estimate(scored[choice.checkpoint]) for metric, scored in by_metric.items()
                    },
                )
                for choice in found[name].choices
            ],
        )
    return tested


def _accesses(run: Run, name: str, scored: TaskScores) -> list[HoldoutAccess]:
    """The test-set accesses that scoring the chosen checkpoints of the task `name` needs."""
    models = checkpoints(run, tuple(choice.checkpoint for choice in scored.choices))
    return [
        HoldoutAccess(
            task=name,
            checkpoint=choice.checkpoint,
            version=models[choice.checkpoint].version,
            why=choice.what,
            chosen_on=choice.chosen_on,
            iterations=choice.iterations,
            items=len(items_of(run, name, "test")),
            prompt_format=scored.prompt_format,
        )
        for choice in scored.choices
    ]


def _estimate(scored: CheckpointScores) -> Interval:
    # Imported late: it needs scipy.
    from sparta.evaluation.statistics import interval

    mean = mean_of(scored).value
    low, high = interval(list(scored.values.values())) if scored.values else (None, None)
    return Interval(mean, low, high, scored.ungraded)
