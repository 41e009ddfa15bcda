"""Scoring a run's checkpoints: validation for all of them, a choice, then the test split for the chosen ones.

Test splits are asked after checkpoints were chosen, of the chosen ones alone, and every such look is noted down before (looks.py).
"""

import signal
from collections.abc import Callable, Iterable, Mapping

import msgspec

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.driver import Driver
from sparta.cluster.registry import launcher_for, settings_for
from sparta.commands.begin import check_state
from sparta.commands.evaluate_request import EvaluateRequest, EvaluationPlan, plan_evaluation
from sparta.engines.factory import close_engine
from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate, checkpoint_name, checkpoints
from sparta.evaluation.comparison import other_run
from sparta.evaluation.grade import GradeAnswers
from sparta.evaluation.holdout_log import HoldoutAccess, note_accesses
from sparta.evaluation.items import freeze_items, items_file, items_of
from sparta.evaluation.scores import CheckpointScores, scores
from sparta.evaluation.selection import Mean, best, mean_of, pools
from sparta.evaluation.summary import (
    Choice,
    Interval,
    Scale,
    TaskScores,
    format_of_scores,
    merge_into_summary,
)
from sparta.methods.budget import budget_in_words, spent
from sparta.names import suggested
from sparta.phases.base import ArrayPhase
from sparta.recipes.load import adjust
from sparta.screen import Screen
from sparta.store.cleanup import clear_abandoned
from sparta.store.disk import present
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock
from sparta.store.run import Run
from sparta.tasks.base import Split

Entries = Mapping[str, tuple[str, ...]]
"""By task, who is asked: iterations (iter_05: its whole pool) or checkpoints (iter_05-adder)."""


class AnswerDriver:
    """Completes the answers and grades of `run` where its recipe says. `still_ours` is called before work is dealt out."""

    def __init__(self, run: Run, screen: Screen, still_ours: Callable[[], None]) -> None:
        self._run = run
        self._launcher = launcher_for(run)
        self._driver = Driver(run, self._launcher, screen, still_ours)
        self.loads: list[str] = []
        """What was dealt out so far, in words: tasks, and bases that they loaded."""

    def check(self, split: Split, asked: Entries, graded: Entries) -> None:
        """Raises SpartaError where models or judge cannot be asked, as far as that can be seen before anything starts."""
        Evaluate(split, asked).check(self._run)
        if graded:
            GradeAnswers(split, graded).check(self._run)

    def complete(self, split: Split, asked: Entries, graded: Entries) -> None:
        """Every answer that is asked for is there afterwards, and the judge's grades of those in `graded`."""
        self._complete(Evaluate(split, asked))
        if graded:
            self._complete(GradeAnswers(split, graded))

    def is_complete(self, split: Split, asked: Entries, graded: Entries) -> bool:
        """Whether `complete` would find nothing to do."""
        if Evaluate(split, asked).missing(self._run, 0):
            return False
        return not graded or not GradeAnswers(split, graded).missing(self._run, 0)

    def _complete(self, phase: ArrayPhase) -> None:
        # Where all is there, it is read on any machine.
        if phase.missing(self._run, 0):
            self._launcher.check([phase])
        attempts = AttemptDir(self._run, phase, 0)
        before = attempts.numbers
        self._driver.complete(phase, 0)
        records = [
            record
            for attempt in attempts.all()
            if attempt.number not in before
            for record in attempts.records(attempt)
        ]
        if records:
            self.loads.append(f"{phase.title} {len(records)} ({sum(record.loads for record in records)})")


Means = Mapping[str, Mean]
"""By checkpoint, in the order of iterations and pool."""


def score(asked: EvaluateRequest, screen: Screen) -> dict[str, TaskScores]:
    """Score the run as `asked`, add that to its summary and return what was scored now, by task.

    Raises SpartaError; what is done stays, and the same call goes on from there.
    """
    # Asked to go, by a person or by SLURM: like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    state = StateDir(asked.state)
    run = Run.open(state)  # refused before anything is written where there is no run
    with RunLock(state, screen.say) as lock:
        clear_abandoned(state)
        check_state(run)
        # For this process alone: where a run is launched is not decided here, and tasks find nothing in it that depends on where they run.
        run.recipe = adjust(run.recipe, settings_for(asked.cluster, asked.profile, run.recipe))
        todo = plan_evaluation(run, asked)
        others = [
            other_run(asked.against, name, todo.chosen_on(name)) for name in todo.tasks if asked.against
        ]
        for name in todo.every:
            if left_out := ", ".join(metric.name for metric in todo.left_out(name)):
                screen.say(
                    f"{name}: {left_out} left out, for a judge gives that and the recipe names none (evaluation.judge)"
                )
        driver = AnswerDriver(run, screen, lock.check)
        try:
            found = _validated(run, todo, asked, driver)
            if asked.split != "validation":
                found |= _tested(run, todo, found, driver)
        finally:
            close_engine()
        merge_into_summary(state, found)
        if driver.loads:
            screen.say(f"tasks (model loads): {', '.join(driver.loads)}")
        for other in others:
            scored = found[other.task]
            if other.scores.way != scored.way:
                screen.say(
                    f"{other.task}: {other.title} was asked or graded otherwise ({other.scores.way}, here {scored.way})"
                )
            compared = other.compare(run, scored.choices, todo.metrics(other.task), screen.say)
            found[other.task] = msgspec.structs.replace(scored, against=compared)
        merge_into_summary(state, found)
        if (tokens := spent(run)).total:
            screen.say(
                f"method {run.recipe.method}, budget {budget_in_words(run.recipe)}; tokens of the run: {tokens.in_words}"
            )
        return found


def _validated(
    run: Run, todo: EvaluationPlan, asked: EvaluateRequest, driver: AnswerDriver
) -> dict[str, TaskScores]:
    """Every checkpoint on the validation splits that choices are made on, and for every task the choice."""
    pool = tuple(run.iteration(t).root.name for t in todo.iterations)
    entries: Entries = dict.fromkeys(todo.choosing, pool)
    # Only what checkpoints are chosen by: a judge's grades of all their answers by the other metrics would serve nobody.
    graded = {name: pool for name in todo.choosing if todo.metrics(name)[0].rubric is not None}
    if asked.split == "test":
        _require_validation(run, entries, graded, asked, driver)
    for name in todo.choosing:
        freeze_items(run, name, "validation")
    if not driver.is_complete("validation", entries, graded):
        # The test split's too: what cannot be had there is told before an hour is spent here.
        driver.check(
            "validation", dict.fromkeys(todo.every, pool), dict.fromkeys(_judged(todo, todo.every), pool)
        )
    driver.complete("validation", entries, graded)
    means = {name: _means(run, name, todo.metrics(name)[0].name, pool) for name in todo.choosing}
    return {name: _chosen(run, todo, name, means, asked.every) for name in todo.every}


def _require_validation(
    run: Run, entries: Entries, graded: Entries, asked: EvaluateRequest, driver: AnswerDriver
) -> None:
    for name, pool in entries.items():
        there = present(items_file(run, name, "validation"))
        grades = {name: pool} if name in graded else {}
        if not there or not driver.is_complete("validation", {name: pool}, grades):
            every = ("--all",) if asked.every else ()
            raise SpartaError(
                f"checkpoints are chosen on the validation split of {name}, and answers to it are missing: run "
                f"{suggested('evaluate', run.state.root, '--tasks', name, *every, '--split', 'validation')}"
            )


def _means(run: Run, name: str, metric: str, entries: tuple[str, ...]) -> Means:
    found = scores(run, "validation", name, metric, entries)
    return {checkpoint: mean_of(found[checkpoint]) for checkpoint in checkpoints(run, entries)}


def _chosen(run: Run, todo: EvaluationPlan, name: str, means: Mapping[str, Means], every: bool) -> TaskScores:
    """What is known of the task `name` once checkpoints have been chosen."""
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
        way=format_of_scores(run, name, judged=bool(_judged(todo, [name]))),
        validation={checkpoint: mean.value for checkpoint, mean in own.items()},
        ungraded={checkpoint: mean.ungraded for checkpoint, mean in own.items()},
        unanswered={checkpoint: mean.unanswered for checkpoint, mean in own.items() if mean.unanswered},
        choices=choices,
    )


def _choice(
    run: Run, todo: EvaluationPlan, on: str, what: str, among: tuple[int, ...], means: Means
) -> Choice:
    names = {checkpoint_name(run, t, model) for t in among for model in run.models}
    checkpoint, value = best(on, what, {name: mean for name, mean in means.items() if name in names})
    return Choice(what, checkpoint, on, _scales(todo, on)[0], among, value)


def _scales(todo: EvaluationPlan, name: str) -> list[Scale]:
    return [Scale(metric.name, metric.top) for metric in todo.metrics(name)]


def _judged(todo: EvaluationPlan, names: Iterable[str]) -> list[str]:
    """Those of the tasks `names` of which a judge gives a metric."""
    return [name for name in names if any(metric.rubric for metric in todo.metrics(name))]


def _tested(
    run: Run, todo: EvaluationPlan, found: Mapping[str, TaskScores], driver: AnswerDriver
) -> dict[str, TaskScores]:
    """`found` of the tasks whose test splits are wanted, with the scores of their choices there."""
    entries: Entries = {
        name: tuple(sorted({choice.checkpoint for choice in found[name].choices})) for name in todo.tasks
    }
    graded = {name: entries[name] for name in _judged(todo, todo.tasks)}
    for name in todo.tasks:
        freeze_items(run, name, "test")
    if not driver.is_complete("test", entries, graded):
        # What cannot be asked is no look.
        driver.check("test", entries, graded)
    looks = {name: note_accesses(run.state, _looks(run, name, found[name])) for name in todo.tasks}
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
            looks=[msgspec.structs.replace(look, time="") for look in looks[name]],
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


def _looks(run: Run, name: str, scored: TaskScores) -> list[HoldoutAccess]:
    """The looks at the test split of the task `name` that its choices ask for."""
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
            way=scored.way,
        )
        for choice in scored.choices
    ]


def _estimate(scored: CheckpointScores) -> Interval:
    # Only here: it imports scipy.
    from sparta.evaluation.statistics import interval

    mean = mean_of(scored).value
    low, high = interval(list(scored.values.values())) if scored.values else (None, None)
    return Interval(mean, low, high, scored.ungraded)
