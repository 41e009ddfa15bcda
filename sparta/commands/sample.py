"""Sampling several answers of a run's checkpoints to each validation item, and having sets of them graded: what diversity is measured on.

Only validation splits are answered: a test split is for scores, and every access to it counts.
"""

from sparta.commands.phase_driver import PhaseDriver, locked_run
from sparta.commands.sample_request import SampleRequest, plan_samples
from sparta.evaluation.grade_sets import GradeSets
from sparta.evaluation.items import freeze_items
from sparta.evaluation.sampled import EvaluateBySampling
from sparta.screen import Screen
from sparta.store.records import SetGrade
from sparta.store.run import Run
from sparta.store.shards import read_shards


def sample(request: SampleRequest, screen: Screen) -> None:
    """Make the sampled answers as requested, and the judge's grades of their sets where asked for.

    Raises SpartaError; finished work stays on disk, and the same call continues from there.
    """
    with locked_run(request.state, request.cluster, request.profile, screen) as (run, lock):
        plan = plan_samples(run, request)
        asked = dict.fromkeys(plan.tasks, plan.entries)
        answers = EvaluateBySampling("validation", asked, plan.settings)
        sets = GradeSets("validation", asked, plan.settings) if request.graded else None
        # The judge too: fail now rather than after an hour of sampling.
        if sets is not None:
            sets.check(run)
        for name in plan.tasks:
            freeze_items(run, name, "validation")
        answers.check(run)
        driver = PhaseDriver(run, screen, lock.check)
        if sets is not None and answers.missing(run, 0):
            driver.check(sets)
        driver.complete(answers)
        if sets is not None:
            driver.complete(sets)
        driver.say_loads()
        of = f"{len(plan.names)} checkpoint{'s' * (len(plan.names) != 1)}"
        for part in answers.parts:
            count = plan.settings.samples * len(part.items(run))
            screen.say(f"{part.task}: {count:,} sampled answers of each of {of} are in {part.folder(run)}")
        if sets is not None:
            _say_grades(run, sets, screen)


def _say_grades(run: Run, sets: GradeSets, screen: Screen) -> None:
    """Say how many sets have a grade, and why others have none."""
    for part in sets.parts:
        wanted = {item.key for item in part.work(run, 0)}
        rows = [row for key, row in read_shards(part.folder(run), SetGrade).items() if key in wanted]
        graded = sum(row.score is not None for row in rows)
        screen.say(f"{part.task}: {graded:,} of {len(rows):,} sets are graded")
        if too_long := sum(row.too_long for row in rows):
            screen.say(
                f"  {too_long:,} sets do not fit the judge's context and are ungraded: raise evaluation.judge.engine.context_length"
            )
